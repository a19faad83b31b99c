"""One of two replicas in lock-step: its events are told to the other's, its last ones held.

A replica may be some events ahead of what both have done. Of each of these it holds what the op was
given and what it wrote. Where the two first differ, that is put into the trace, and the run ends.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from repro_audit import engine
from repro_audit.capture.guards import paused
from repro_audit.capture.held import Memory
from repro_audit.capture.pending import Pending
from repro_audit.model.codes import KIND_RNG

if TYPE_CHECKING:
    from repro_audit.capture.memory import UnwrittenMemory
    from repro_audit.capture.operators import Operator
    from repro_audit.capture.readings import Readings
    from repro_audit.capture.sink import Revisable, Row
    from repro_audit.model import Json

# How far a thread may be ahead of what both replicas have done.
EVENTS, BYTES = 64, 256 << 20
# Events are told of in bundles: a message each would keep a core busy.
_BUNDLE = 16
_SILENT = bytes(16)
_MATCHED, _STOP, _FREE = b"A", b"S", b"R"


class Link(Protocol):
    """The line to the referee, who compares what both replicas tell."""

    open: bool

    def thread(self, number: int, name: str) -> None:
        """Tell what a thread's number stands for."""

    def events(self, events: list[tuple[int, bytes, bytes]]) -> None:
        """Tell of events: thread, key and signature of each."""

    def waits(self, number: int) -> None:
        """Tell that a thread waits until events of it are acknowledged."""

    def done(self) -> None:
        """Tell that nothing follows."""

    def orders(self, *, wait: bool) -> list[tuple[bytes, int, int]]:
        """What was ordered: matched (A), stop (S) or go on alone (R), a thread and a number."""

    def close(self) -> None:
        """Have no part in it any more."""


class _Thread:
    """A thread's events that are not acknowledged: first those that are told, then the others."""

    def __init__(self, number: int) -> None:
        self.number = number
        # What the trace calls it: a name may come again.
        self.numbers: list[int] = []
        self.told: deque[Pending] = deque()
        self.untold: deque[Pending] = deque()
        self.matched = 0
        self.last = -1
        self.nbytes = 0


class Watched(list[Any]):
    """A list of the sink that is looked at as it grows. It stays empty: `rows` has them."""

    def __init__(self, rows: list[Row], seen: Callable[[Row], None], lockstep: Lockstep) -> None:
        super().__init__()
        self._rows = rows
        self._seen = seen
        self._lockstep = lockstep

    def append(self, row: Row) -> None:
        """Take a row, unless the run is at its end."""
        self._lockstep.takes(self._rows, self._seen, row)

    def awaits(self, index: int) -> None:
        """A row of event `index` comes later."""
        self._lockstep.awaits(index)


class Lockstep:
    """A sink before another, which tells of what goes through it and holds what may be wanted.

    `room` is to be called before an event, `holds` before an operator runs, `wrote` for each tensor
    that is read, and `done` when an event is complete; `finish` at the end. `caught` is true once
    the events of the replicas came apart: the trace then ends with the first that differs.
    """

    def __init__(
        self, sink: Revisable, link: Link, *, events: int = EVENTS, nbytes: int = BYTES
    ) -> None:
        self._sink = sink
        self._link = link
        self._limits = events, nbytes
        self._memory = Memory()
        # One at a time appends, or is told; another waits for orders meanwhile.
        self._lock = threading.RLock()
        self._orders = threading.Lock()
        self._pending: dict[int, Pending] = {}
        self._threads: dict[str, _Thread] = {}
        self._by_number: dict[int, _Thread] = {}
        self._bundle: list[tuple[int, bytes, bytes]] = []
        self._sites: dict[int, str] = {}
        self._specs: dict[int, bytes] = {}
        self._alone = False
        self.caught = False
        # Whether it was the main thread's event, and how many events are in the trace.
        self.in_main = False
        self.left = 0
        self.events: list[Row] = Watched(sink.events, self._event, self)
        self.outputs: list[Row] = Watched(sink.outputs, self._output, self)
        self.inputs = sink.inputs
        self.clock = sink.clock
        self._named("", 0)

    def reads(self, readings: Readings) -> None:
        """Have what reads the tensors: a device's digests have to be asked for."""
        self._readings = readings

    # -- the sink -------------------------------------------------------------------------------

    def site(self, module: str, op: str) -> int:
        """As the sink."""
        number = self._sink.site(module, op)
        self._sites[number] = repr((module, op))
        return number

    def code(self, location: str, called_from: str | None) -> int:
        """As the sink."""
        return self._sink.code(location, called_from)

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """As the sink."""
        number = self._sink.spec(dtype, shape, device)
        # The same bits are the same wherever they are.
        self._specs[number] = f"{dtype}{shape}".encode()
        return number

    def thread(self, name: str) -> int:
        """As the sink."""
        number = self._sink.thread(name)
        with self._lock:
            self._named(name, number)
        return number

    def end(self, thread: int) -> None:
        """As the sink."""
        with self._lock:
            self._tell()
            if not self.caught:
                self._sink.end(thread)

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """As the sink."""
        self._sink.payload(event, role, position, view)

    def call(self, event: int, call: Json) -> None:
        """As the sink."""
        self._sink.call(event, call)

    def flush(self) -> None:
        """As the sink."""
        self._sink.flush()

    def discard_connection(self) -> None:
        """As the sink; this process is a fork, and the line its parent's."""
        self._link.close()
        self._pending.clear()
        self._threads.clear()
        self._sink.discard_connection()

    # -- before and after an event --------------------------------------------------------------

    def room(self, name: str) -> bool:
        """Wait until the thread of that name may be one event further; True if all is to end."""
        thread = self._threads.get(name)
        if not self._link.open or self._alone:
            return self._leave()
        if engine.capturing():  # where nothing is held, nor can anything be fetched
            return self.caught
        self._listen(wait=False)
        if thread is None:
            return self.caught
        while self._link.open and not (self.caught or self._alone) and self._full(thread):
            self._readings.settle(wait=True)
            with self._lock:
                self._tell()
                self._link.waits(thread.number)
            with self._orders:
                if self._full(thread) and not self.caught:
                    self._obey(self._link.orders(wait=True))
        return self.caught

    def holds(
        self,
        index: int,
        operator: Operator,
        args: Any,
        kwargs: dict[str, Any] | None,
        memory: UnwrittenMemory,
        filled: torch.Tensor | None,
    ) -> Pending | None:
        """Hold what an operator is about to be given; None where nothing is compared.

        `filled` is unwritten memory that it writes the rest of.
        """
        if self._alone or operator.outside or engine.captive():
            return None
        event = Pending(index)
        event.hold_call(self._memory, self._readings, operator, args, kwargs, memory, filled)
        return event

    def ran(self, held: Pending | None) -> None:
        """The operator has run that something is held of."""
        if held is not None and not self._alone:
            self._pending[held.index] = held

    def wrote(self, index: int, position: int, tensor: torch.Tensor) -> None:
        """Event `index` gave this tensor, which is to be held when it is done."""
        if not (self._alone or engine.captive()):
            self._at(index).written.append((position, tensor))

    def done(self, index: int) -> None:
        """Event `index` is complete, but for digests that a device has yet to give."""
        if self._alone:
            return
        event = self._at(index)
        event.hold_outputs(self._memory)
        with self._lock:
            event.closed = True
            if event.thread is not None:
                event.thread.nbytes += event.nbytes
            self._complete(event)

    def finish(self) -> None:
        """The program has ended: wait until the other replica is as far."""
        if not self._link.open or self._alone:
            return
        with self._lock:
            self._tell()
            self._link.done()
        with self._orders:
            while self._link.open and not (self.caught or self._alone):
                self._obey(self._link.orders(wait=True))

    # -- rows -----------------------------------------------------------------------------------

    def takes(self, rows: list[Row], seen: Callable[[Row], None], row: Row) -> None:
        """Take a row of the sink's; none any more once the replicas came apart."""
        if self.caught:
            return
        if self._alone:
            rows.append(row)
            return
        with self._lock:
            if not self.caught:
                rows.append(row)
                seen(row)

    def _event(self, row: Row) -> None:
        index, kind, step, phase, thread, site = row[:6]
        if kind == KIND_RNG:
            # States are not compared: one that nobody draws from changes nothing.
            self._pending.pop(index, None)
            return
        event = self._at(index)
        word = f"{kind} {step} {phase} {self._sites[site]}".encode()
        event.key = hashlib.blake2b(word, digest_size=8).digest()
        event.thread = self._by_number[thread]
        event.thread.untold.append(event)

    def _output(self, row: Row) -> None:
        event = self._at(row[0])
        event.rows.append(row)
        if event.awaited:
            event.awaited -= 1
            self._complete(event)

    def awaits(self, index: int) -> None:
        """An output's digest will come later."""
        if not self._alone:
            with self._lock:
                self._at(index).awaited += 1

    def _at(self, index: int) -> Pending:
        event = self._pending.get(index)
        if event is None:
            event = self._pending[index] = Pending(index)
        return event

    # -- telling and being told -----------------------------------------------------------------

    def _named(self, name: str, number: int) -> None:
        thread = self._threads.get(name)
        if thread is None:
            thread = self._threads[name] = _Thread(len(self._threads))
            self._link.thread(thread.number, name)
        thread.numbers.append(number)
        self._by_number[number] = thread

    def _full(self, thread: _Thread) -> bool:
        events, nbytes = self._limits
        return len(thread.told) + len(thread.untold) >= events or thread.nbytes >= nbytes

    def _complete(self, event: Pending) -> None:
        """Tell of a thread's events, in their order, as far as they are complete."""
        thread = event.thread
        if thread is None:
            return
        while thread.untold and thread.untold[0].closed and not thread.untold[0].awaited:
            first = thread.untold.popleft()
            del self._pending[first.index]
            thread.told.append(first)
            self._bundle.append((thread.number, first.key, self._signature(first)))
        if len(self._bundle) >= _BUNDLE:
            self._tell()

    def _signature(self, event: Pending) -> bytes:
        """As `Trace.signature`: equal for equal outputs."""
        if all(row[3] is None for row in event.rows):
            return _SILENT
        parts = hashlib.blake2b(digest_size=16)
        for _, _, spec, digest, _ in sorted(event.rows, key=lambda row: row[1]):
            parts.update(self._specs[spec] + (digest or b"") + b"|")
        return parts.digest()

    def _tell(self) -> None:
        if self._bundle:
            bundle, self._bundle = self._bundle, []
            self._link.events(bundle)

    def _listen(self, *, wait: bool) -> None:
        # Whoever waits for orders already will hear them.
        if self._orders.acquire(blocking=False):
            try:
                self._obey(self._link.orders(wait=wait))
            finally:
                self._orders.release()

    def _obey(self, orders: list[tuple[bytes, int, int]]) -> None:
        threads = list(self._threads.values())
        for what, number, count in orders:
            with self._lock:
                if what == _MATCHED:
                    self._match(threads[number], count)
                elif what == _STOP:
                    self._stop(threads[number])
                elif what == _FREE:
                    self._leave()
        if not self._link.open:
            self._leave()

    def _match(self, thread: _Thread, count: int) -> None:
        while thread.matched < count:
            event = thread.told.popleft()
            thread.matched += 1
            thread.last = event.index
            thread.nbytes -= event.nbytes

    def _leave(self) -> bool:
        """Go on alone: hold nothing, tell nothing."""
        if not self._alone:
            with self._lock:
                self._alone = True
                self._bundle.clear()
                self._pending.clear()
                for thread in self._threads.values():
                    thread.told.clear()
                    thread.untold.clear()
        return self.caught

    # -- the end --------------------------------------------------------------------------------

    def _stop(self, thread: _Thread) -> None:
        """Keep the first event of a thread that differs, and let the trace end with it."""
        event = thread.told[0]
        with paused():
            self._readings.settle(wait=True)
            self.caught = True
            self.in_main = 0 in thread.numbers
            event.keep(self._sink, self._readings)
        self._sink.flush()
        last = {
            number: event.index if other is thread else other.last
            for other in self._threads.values()
            for number in other.numbers
        }
        self.left = self._sink.cut_off(last)
        for number in thread.numbers:
            self._sink.end(number)
        self._leave()
