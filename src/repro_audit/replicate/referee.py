"""Compares what two replicas in lock-step tell of their events, and orders what follows from it.

Only what to keep and when to stop is decided here; the verdict comes from the traces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from repro_audit.replicate.link import (
    DONE,
    EVENT,
    FREE,
    KEPT,
    MATCHED,
    ORDER,
    SILENT,
    STOP,
    THREAD,
    WAITS,
)

Report = tuple[bytes, int, bytes, bytes]
# Events are acknowledged in bundles, unless somebody waits.
_BUNDLE = 16


@dataclass(slots=True, eq=False)
class _Thread:
    """A thread of both replicas: what one of them has told of it and the other has not."""

    ahead: tuple[deque[tuple[bytes, bytes]], deque[tuple[bytes, bytes]]] = field(
        default_factory=lambda: (deque(), deque())
    )
    numbers: list[int | None] = field(default_factory=lambda: [None, None])
    matched: int = 0
    acknowledged: int = 0
    waits: list[bool] = field(default_factory=lambda: [False, False])


class Referee:
    """Hears reports of two replicas, numbered 0 and 1, and has orders for them.

    `apart` is true once an event differs: both are to keep it and stop. `free` is true once they go
    on alone: where they take different paths, or one is at its end.
    """

    def __init__(self) -> None:
        self.apart = False
        self.free = False
        self.kept = [False, False]
        self._threads: dict[bytes, _Thread] = {}
        self._by_number: tuple[dict[int, _Thread], dict[int, _Thread]] = ({}, {})
        self._done = [False, False]
        self._events = [0, 0]
        self._orders: tuple[list[bytes], list[bytes]] = ([], [])

    def hear(self, side: int, reports: Iterable[Report]) -> None:
        """Take what one of them tells."""
        touched: set[_Thread] = set()
        for what, number, key, signature in reports:
            if what == KEPT:
                self.kept[side] = True
            elif self.apart or self.free:
                continue
            elif what == THREAD:
                thread = self._threads.setdefault(signature, _Thread())
                thread.numbers[side] = number
                self._by_number[side][number] = thread
            elif what == EVENT:
                thread = self._by_number[side][number]
                self._events[side] += 1
                thread.ahead[side].append((key, signature))
                thread.waits[side] = False
                self._match(thread)
                touched.add(thread)
            elif what == WAITS:
                thread = self._by_number[side][number]
                thread.waits[side] = True
                touched.add(thread)
            elif what == DONE:
                self._done[side] = True
        if self.apart or self.free:
            return
        for thread in touched:
            if thread.matched - thread.acknowledged >= _BUNDLE or any(thread.waits):
                self._acknowledge(thread)
        self._end()

    def gone(self, side: int) -> None:
        """One of them has ended, and tells nothing more."""
        if not (self.apart or self.free):
            self._done[side] = True
            self._end()

    def orders(self, side: int) -> bytes:
        """What one of them is to be told now."""
        orders = b"".join(self._orders[side])
        self._orders[side].clear()
        return orders

    def release(self) -> None:
        """Let both go on alone."""
        if not (self.apart or self.free):
            self.free = True
            for orders in self._orders:
                orders.append(ORDER.pack(FREE, 0, 0))

    def waiting(self, side: int) -> bool:
        """True while one of them can do nothing before the other does something."""
        if self.apart or self.free:
            return False
        return self._done[side] or any(thread.waits[side] for thread in self._threads.values())

    def told(self, side: int) -> int:
        """How many events one of them has told of."""
        return self._events[side]

    def done(self, side: int) -> bool:
        """True once one of them has no more to tell."""
        return self._done[side]

    def _match(self, thread: _Thread) -> None:
        one, other = thread.ahead
        while one and other and not (self.apart or self.free):
            (key, signature), (other_key, other_signature) = one[0], other[0]
            if key != other_key:
                # What follows tells which of them does something more: the traces have it.
                self.release()
            elif signature != other_signature and SILENT not in (signature, other_signature):
                self._part(thread)
            else:
                one.popleft()
                other.popleft()
                thread.matched += 1

    def _part(self, thread: _Thread) -> None:
        # Both have to know the same of all threads: what is beyond that is taken back.
        for other in self._threads.values():
            self._acknowledge(other)
        self.apart = True
        for number, orders in zip(thread.numbers, self._orders, strict=True):
            orders.append(ORDER.pack(STOP, number or 0, thread.matched))

    def _acknowledge(self, thread: _Thread) -> None:
        if thread.matched == thread.acknowledged:
            return
        thread.acknowledged = thread.matched
        thread.waits[:] = [False, False]
        for number, orders in zip(thread.numbers, self._orders, strict=True):
            if number is not None:
                orders.append(ORDER.pack(MATCHED, number, thread.matched))

    def _end(self) -> None:
        """Where one has come to its end there may be nothing left to compare."""
        for side in (0, 1):
            if not self._done[side]:
                continue
            other = 1 - side
            threads = self._threads.values()
            beyond = any(thread.ahead[other] for thread in threads)
            behind = any(thread.ahead[side] for thread in threads)
            if self._done[other] or beyond or not behind:
                self.release()
                return
