"""Runs two replicas side by side, in lock-step: neither is far ahead of what both have done."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from repro_audit.errors import InterruptedRunError, ProgramFailedError
from repro_audit.model import Plan
from repro_audit.replicate.launch import (
    POLL,
    Outcome,
    Replica,
    failure,
    termination_interrupts,
)
from repro_audit.replicate.link import REPORT
from repro_audit.replicate.referee import Referee

# A replica hangs if the other waits for it so many seconds, and so many times what the other took
# to come where it waits.
PATIENCE, TIMES = 60.0, 10.0
# Threads that wait for each other's locks may have both replicas wait: that ends here, in seconds.
_STANDSTILL = 2.0
# What a program gets for its last words once it was told to end, in seconds.
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """How to start one of the two: as for `launch.run`."""

    plan: Plan
    cwd: Path | None = None
    env: dict[str, str] | None = None
    command: tuple[str, ...] | None = None


def run_pair(
    one: Start,
    other: Start,
    *,
    directory: Path,
    timeout: float | None = None,
    patience: float = PATIENCE,
    on_progress: Callable[[int, int], None] = lambda steps, events: None,
) -> tuple[Outcome, Outcome]:
    """Be the supervisor of two runs at once, as `launch.run` of one.

    The second begins with the first's first event: what the programs do before it, such as counting
    their runs in a file, they do one after the other. Where an event of one differs from that of
    the other, both keep what it was given and what it wrote, and end; an outcome is then `apart`.
    `on_progress` is told how far both are.

    When one ends badly the other is ended too. Raises ProgramFailedError where one hangs: the other
    has waited for it for `patience` seconds and ten times what it took itself to come so far.
    """
    with termination_interrupts():
        pair = _Pair((one, other), directory, timeout, patience, on_progress)
        try:
            pair.run()
        except KeyboardInterrupt:
            pair.interrupt()
            runs = f"{one.plan.run} and {other.plan.run}"
            raise InterruptedRunError(f"interrupted in {runs}") from None
        finally:
            pair.bury()
    return pair.outcomes()


class _Side:
    """One of the two: its process and the line to it."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.line, self._theirs = socket.socketpair()
        self.line.setblocking(False)
        self.replica: Replica | None = None
        self.outcome: Outcome | None = None
        self.progress = (0, 0)
        self.heard = self.began = time.monotonic()
        # When it was told to end, and since when it waits for the other.
        self.told_to_end: float | None = None
        self.waits: float | None = None
        self._rest = b""

    @property
    def under_way(self) -> bool:
        """True while its process runs."""
        return self.replica is not None and self.outcome is None

    def begin(self, directory: Path, timeout: float | None, tell: Callable[[], None]) -> None:
        """Start its process."""
        start = self.start
        plan = replace(start.plan, lockstep=self._theirs.fileno())

        def progress(steps: int, events: int) -> None:
            self.progress = steps, events
            tell()

        self.heard = self.began = time.monotonic()
        self.replica = Replica(
            plan, directory, cwd=start.cwd, env=start.env, timeout=timeout, command=start.command
        )
        self.replica.follow(progress)
        self._theirs.close()

    def reports(self) -> list[tuple[bytes, int, bytes, bytes]]:
        """What it has told since the last call."""
        data = self._rest
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while more := self.line.recv(1 << 16):
                data += more
        whole = len(data) - len(data) % REPORT.size
        self._rest = data[whole:]
        if whole:
            self.heard = time.monotonic()
        return list(REPORT.iter_unpack(data[:whole]))

    def tell(self, orders: bytes) -> None:
        """Hand orders on. They are few: more than a line takes at once there never are."""
        if orders:
            with contextlib.suppress(OSError):
                self.line.setblocking(True)
                self.line.sendall(orders, socket.MSG_NOSIGNAL)
            self.line.setblocking(False)

    def end(self, *, apart: bool = False) -> None:
        """Bury its process."""
        if self.replica is not None and self.outcome is None:
            self.outcome = self.replica.bury(apart=apart)
        self._theirs.close()
        self.line.close()


class _Pair:
    def __init__(
        self,
        starts: tuple[Start, Start],
        directory: Path,
        timeout: float | None,
        patience: float,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._sides = _Side(starts[0]), _Side(starts[1])
        self._directory = directory
        self._timeout = timeout
        self._patience = patience
        self._on_progress = on_progress
        self._referee = Referee()
        # Since when both are to end.
        self._apart: float | None = None

    def run(self) -> None:
        """From the start of the first until both have ended."""
        self._begin(self._sides[0])
        while any(side.under_way for side in self._sides):
            self._wait()
            for number, side in enumerate(self._sides):
                if side.under_way:
                    self._attend(number, side)
            second = self._sides[1]
            if second.replica is None and (self._referee.told(0) or not self._sides[0].under_way):
                if self._failed(self._sides[0]):
                    return
                self._begin(second)
            self._pass_on()
            self._check()

    def interrupt(self) -> None:
        """Tell both to end."""
        for side in self._sides:
            if side.under_way and side.replica is not None:
                side.replica.interrupt()

    def bury(self) -> None:
        """Leave nothing behind."""
        for number, side in enumerate(self._sides):
            side.end(apart=self._referee.kept[number])

    def outcomes(self) -> tuple[Outcome, Outcome]:
        """How both ended; the first that failed has its error raised where one never began."""
        one, other = self._sides[0].outcome, self._sides[1].outcome
        assert one is not None
        if other is None:
            raise failure(one, self._sides[0].start.plan)
        return one, other

    def _begin(self, side: _Side) -> None:
        side.begin(self._directory, self._timeout, self._tell)

    def _tell(self) -> None:
        # Of two that do the same the slower one says how far they are.
        self._on_progress(*min(side.progress for side in self._sides))

    def _wait(self) -> None:
        """Until one tells something; not for long: a death tells nothing."""
        poll = select.poll()
        for side in self._sides:
            if side.under_way:
                poll.register(side.line, select.POLLIN)
        # A line whose other end is closed is always ready.
        if any(event & select.POLLHUP for _, event in poll.poll(POLL * 1000)):
            time.sleep(POLL)

    def _attend(self, number: int, side: _Side) -> None:
        assert side.replica is not None
        # Forks of it may hold the line: that it is gone is known by its process alone.
        ended, referee = side.replica.ended, self._referee
        referee.hear(number, side.reports())
        side.replica.watch()
        if ended:
            referee.gone(number)
            side.outcome = side.replica.bury(apart=referee.kept[number])
        elif side.replica.overdue:
            side.outcome = side.replica.bury(apart=referee.kept[number])
            referee.gone(number)
        elif referee.kept[number]:
            now = time.monotonic()
            side.told_to_end = now if side.told_to_end is None else side.told_to_end
            if now - side.told_to_end > _GRACE:
                side.replica.interrupt()
                side.outcome = side.replica.bury(apart=True)
        if self._failed(side):
            self._end_other(side)

    def _pass_on(self) -> None:
        for number, side in enumerate(self._sides):
            if side.replica is not None:
                side.tell(self._referee.orders(number))

    def _check(self) -> None:
        """Does one wait in vain?"""
        now = time.monotonic()
        referee = self._referee
        for number, side in enumerate(self._sides):
            if referee.waiting(number):
                side.waits = now if side.waits is None else side.waits
            else:
                side.waits = None
        heard = max(side.heard for side in self._sides)
        if all(side.waits is not None for side in self._sides) and now - heard > _STANDSTILL:
            referee.release()
            self._pass_on()
        for number, side in enumerate(self._sides):
            other = self._sides[1 - number]
            if not other.under_way:
                continue
            if referee.apart:
                # It has yet to come to an op, where it hears that it is to end.
                kept = referee.kept[1 - number]
                since = None if kept else max(other.heard, self._apart or now)
                patience = self._patience
                self._apart = self._apart or now
            else:
                since = None if other.waits is not None else side.waits
                since = since and max(since, other.heard)
                patience = max(self._patience, TIMES * ((since or now) - side.began))
            if since is not None and now - since > patience:
                raise self._hangs(number, other, now - since)

    def _hangs(self, number: int, other: _Side, seconds: float) -> ProgramFailedError:
        plan, waiting = other.start.plan, self._sides[number].start.plan.run
        count = self._referee.told(1 - number)
        return ProgramFailedError(
            f"{plan.target.label} ({plan.run}) hangs: in lock-step with {waiting}, it did nothing "
            f"more for {seconds:.0f} s after {count:,} events.\n"
            f"Without --lockstep it is ended by --timeout S."
        )

    def _failed(self, side: _Side) -> bool:
        outcome = side.outcome
        return outcome is not None and not outcome.apart and outcome.returncode != 0

    def _end_other(self, side: _Side) -> None:
        """What the other one does yet is of no use."""
        other = self._sides[1 - self._sides.index(side)]
        if other.under_way and other.replica is not None:
            other.replica.interrupt()
            other.outcome = other.replica.bury(ended=True)
