"""What a recorder makes of what happens: numbered events, with fingerprints of their tensors."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch

from repro_audit.capture.dispatch import OpMode
from repro_audit.capture.focus import Focus
from repro_audit.capture.given import Given
from repro_audit.capture.guards import paused
from repro_audit.capture.inputs import take_inputs
from repro_audit.capture.late import alike
from repro_audit.capture.lockstep import Lockstep
from repro_audit.capture.memory import UnwrittenMemory
from repro_audit.capture.operators import Operator
from repro_audit.capture.readings import Readings
from repro_audit.capture.sink import Kept, Row, Sink
from repro_audit.capture.values import Values
from repro_audit.model import Interval, Level, SiteKey
from repro_audit.model.codes import (
    DATA,
    FORWARD,
    KIND_BATCH,
    KIND_MODULE,
    KIND_OP,
    KIND_PARAM,
    KIND_RNG,
    KIND_STATE,
    PHASES,
    PRESENT,
    RNG,
    TAINTED,
)

_FLUSH_EVERY = 4096


class Events(ABC):
    """Events of one run, into its sink: which of them are looked at, and what is kept of each.

    Arguments are the recorder's.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        level: Level,
        interval: Interval | None,
        capture: tuple[SiteKey, ...],
        poison: int | None,
        samples: int,
        budget: int,
        starting_only: bool,
        given: Given | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.sink = sink
        self.lockstep = sink if isinstance(sink, Lockstep) else None
        self.active = False
        self.step = 0
        self._level = level
        self._poison = poison
        self._look_at(capture, interval)
        self.memory = UnwrittenMemory(poison=poison)
        # True once there are other processes, whose events an order in time tells apart.
        self.clocked = False
        self.unobserved: Counter[str] = Counter()
        self.readings = Readings(sink, self.unobserved)
        if self.lockstep is not None:
            self.lockstep.reads(self.readings)
        self.values = (
            Values(
                cast(Kept, sink),
                self.readings,
                samples=samples,
                budget=budget,
                starting_only=starting_only,
            )
            if samples
            else None
        )
        self.given = given
        self._on_progress = on_progress
        self._sites: dict[tuple[str, str], int] = {}
        self._begin()

    def _begin(self) -> None:
        self._indices = itertools.count()
        self._events = 0
        # The first event goes to the file at once: from then on it shows that the process was here.
        self._flush_at = 0
        self._sites.clear()

    def _use(self, sink: Sink) -> None:
        """Go on with other events, into another sink, with no other replica."""
        self.sink = sink
        self.lockstep = None
        self._begin()
        self.readings.use(sink)
        if self.values is not None:
            self.values.use(cast(Kept, sink), self.readings)

    @abstractmethod
    def mode(self) -> OpMode | None:
        """The calling thread's mode; None where nothing of it is recorded."""

    @abstractmethod
    def together(self, mode: OpMode) -> None:
        """Before an event: let the other replica come near, and end here where the two parted."""

    def next_index(self) -> int:
        """The next event's place in the run; events of all threads share one order."""
        return next(self._indices)

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""
        try:
            return self._sites[module, op]
        except KeyError:
            number = self._sites[module, op] = self.sink.site(module, op)
            return number

    def add_event(self, row: Row) -> None:
        """Take an event row; write out every few thousand."""
        self.sink.events.append(row)
        self._events += 1
        if self.clocked:
            self.sink.clock.append((row[0], time.monotonic_ns()))
        if self._events >= self._flush_at and row[1] != KIND_RNG:
            self._flush_at = self._events + _FLUSH_EVERY
            self.flush()

    def flush(self) -> None:
        """Write out what there is; digests that a device has not given yet follow later."""
        self.readings.settle()
        if self.values is not None:
            self.values.settle()
        self.sink.flush()
        self._on_progress(self.step, self._events)

    def add_tensor(
        self,
        index: int,
        position: int,
        tensor: torch.Tensor,
        read: bool,
        keep: bool,
        whole: bool,
        name: str | None = None,
        bits: torch.Tensor | None = None,
    ) -> None:
        """Record one output of event `index`; fingerprint it if `read`, keep its bits if `keep`.

        `whole` says that the operator wrote all of it; `bits` is what it will be a copy of, where
        the operator does not wait for that.
        """
        if bits is not None and not alike(bits, tensor):
            self.unobserved["a copy to the host that nothing waits for, as another dtype"] += 1
            read = keep = False
        self.readings.take(
            self.sink.outputs, index, position, tensor, read=read, name=name, bits=bits
        )
        if whole and self.memory.unwritten and tensor.layout is torch.strided:
            self.memory.wrote(tensor)
        source = tensor if bits is None else bits
        if self.lockstep is not None and read and not keep:
            self.lockstep.wrote(index, position, source)
        if keep:
            self.readings.keep(index, position, source)

    def add(
        self,
        kind: int,
        phase: int,
        op: str,
        outputs: list[tuple[str | None, torch.Tensor | bytes]],
        *,
        module: str = "",
        code: int | None = None,
    ) -> int | None:
        """Record an event that is no operator: tensors or ready digests, named, in order.

        Returns its index; None where nothing is recorded.
        """
        mode = self.mode()
        if not self.active or mode is None:
            return None
        if kind != KIND_RNG:
            self.together(mode)
        index, site, count = self._place(mode, phase, module, op)
        keep = bool(self.wanted) and self.wants(phase, module, op, count, mode)
        flags = 0
        given, values = self.given, self.values
        if given is not None:
            key = given.key(mode, phase, module, op, count)
            given.enters(kind, key, outputs)
        with paused():
            for position, (name, value) in enumerate(outputs):
                if isinstance(value, bytes):
                    self.readings.value(self.sink.outputs, index, position, value, name)
                    continue
                unwritten = kind in PRESENT and self.memory.holds(value)
                flags |= TAINTED if unwritten else 0
                # A cache of `torch.empty`, or a buffer that a model is handed to write to, may
                # never be written, nor read, to its end.
                read = not unwritten or isinstance(value, torch.nn.Parameter)
                self.readings.take(self.sink.outputs, index, position, value, read=read, name=name)
                if keep:
                    self.readings.keep(index, position, value)
                elif self.lockstep is not None and read and kind != KIND_STATE:
                    self.lockstep.wrote(index, position, value)
                if values is not None and read and kind != KIND_STATE:
                    starting = kind == KIND_BATCH or (mode.step == count == 0)
                    values.take(
                        index, position, value, step=mode.step, phase=phase, starting=starting
                    )
                if given is not None and read and kind == KIND_PARAM:
                    given.parameter(index, key, value)
        self.add_event((index, kind, mode.step, phase, mode.thread, site, count, code, None, flags))
        if self.lockstep is not None and kind != KIND_RNG:
            self.lockstep.done(index)
        self._passed(mode, phase, module, op, count)
        return index

    def module_event(
        self,
        mode: OpMode,
        phase: int,
        module: str,
        op: str,
        outputs: list[tuple[str | None, torch.Tensor, bytes | None]],
        *,
        code: int | None,
        cause: int | None,
        flags: int,
    ) -> int:
        """Record what a module gave, or its gradient; digests where they are ready."""
        self.together(mode)
        index, site, count = self._place(mode, phase, module, op)
        for position, (name, tensor, digest) in enumerate(outputs):
            self.readings.take(self.sink.outputs, index, position, tensor, name=name, digest=digest)
            if self.lockstep is not None:
                self.lockstep.wrote(index, position, tensor)
            if self.values is not None:
                step = mode.step
                self.values.take(index, position, tensor, step=step, phase=phase, starting=False)
        self.add_event(
            (index, KIND_MODULE, mode.step, phase, mode.thread, site, count, code, cause, flags)
        )
        if self.lockstep is not None:
            self.lockstep.done(index)
        self._passed(mode, phase, module, op, count)
        return index

    def _place(self, mode: OpMode, phase: int, module: str, op: str) -> tuple[int, int, int]:
        """Index, site and call index of an event that is no operator."""
        site = self.site(module, op)
        place = site * 8 + phase
        count = mode.counts.get(place, 0)
        mode.counts[place] = count + 1
        return self.next_index(), site, count

    def _passed(self, mode: OpMode, phase: int, module: str, op: str, count: int) -> None:
        if self.focus.modules:
            self.focus.passed(SiteKey(mode.step, PHASES[phase], module, op, count, mode.name), mode)

    def batch(
        self, op: str, outputs: list[tuple[str | None, torch.Tensor | bytes]], code: int | None
    ) -> None:
        """Record what came in from outside."""
        if outputs:
            self.add(KIND_BATCH, DATA, op, outputs, code=code)

    def received(self, op: str, tensors: list[torch.Tensor], code: int | None) -> None:
        """Record what a collective gave this process, once it is there."""
        mode = self.mode()
        if mode is None or not tensors:
            return
        module = mode.stack[-1][0] if mode.stack else ""
        named: list[tuple[str | None, torch.Tensor | bytes]] = [(None, t) for t in tensors]
        base = op.rpartition(".")[0]
        self.add(KIND_OP, FORWARD, f"{base}.result", named, module=module, code=code)

    def generator(self, op: str, digest: bytes, code: int | None = None) -> int | None:
        """Record a generator's state, or the seed it was given; returns the event's index."""
        return self.add(KIND_RNG, RNG, op, [(None, digest)], code=code)

    def draw(self, op: str, code: int | None) -> None:
        """Record that a number is drawn from a global generator."""
        self.add(KIND_RNG, RNG, op, [], code=code)

    # -- the zoom -------------------------------------------------------------------------------

    def _look_at(self, capture: tuple[SiteKey, ...], interval: Interval | None) -> None:
        self.wanted = {
            (key.step, key.phase, key.module, key.op, key.call_index, key.thread) for key in capture
        }
        self.focus = Focus(self._level, interval)
        self._dispatches = self.focus.dispatches(poison=self._poison)

    def wants(self, phase: int, module: str, op: str, count: int, mode: OpMode) -> bool:
        """True if this event's tensors were asked for."""
        return (mode.step, PHASES[phase], module, op, count, mode.name) in self.wanted

    def take_inputs(
        self, index: int, operator: Operator, args: Any, kwargs: Any, filled: torch.Tensor | None
    ) -> bool:
        """Keep what the operator of event `index` is given; False where that is what it returns.

        `filled` is unwritten memory that it writes the rest of.
        """
        return take_inputs(self, index, operator, args, kwargs, filled)
