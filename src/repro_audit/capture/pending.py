"""An event that may yet turn out to be the first that differs: its rows, and what is held of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from repro_audit.capture.calls import plain_arguments
from repro_audit.capture.generators import digest_of
from repro_audit.capture.guards import paused
from repro_audit.capture.held import Held, Memory
from repro_audit.capture.operators import Operator, tensors_in

if TYPE_CHECKING:
    from repro_audit.capture.memory import UnwrittenMemory
    from repro_audit.capture.readings import Readings
    from repro_audit.capture.sink import Revisable, Row

# A call beyond that is not held; as for what is kept of an attended one.
_LARGEST = 2 << 30


class Pending:
    """An event that the other replica is not known to have: its rows, and what is held of it."""

    __slots__ = (
        "awaited",
        "call",
        "closed",
        "given",
        "index",
        "inputs",
        "key",
        "outputs",
        "places",
        "plain",
        "rows",
        "thread",
        "written",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.key = b""
        self.thread: Any = None
        self.rows: list[Row] = []
        # Digests that a device has yet to give.
        self.awaited = 0
        self.closed = False
        self.call: Held | None = None
        self.given = 0
        # Place of each input: in the call, or its row.
        self.inputs: list[tuple[int, int | None, Any]] = []
        self.plain: Any = None
        self.outputs: Held | None = None
        # Tensors with their positions among the outputs; then their places among those held.
        self.written: list[tuple[int, torch.Tensor]] = []
        self.places: list[tuple[int, int]] = []

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(held.nbytes for held in (self.call, self.outputs) if held is not None)

    def hold_call(
        self,
        room: Memory,
        readings: Readings,
        operator: Operator,
        args: Any,
        kwargs: dict[str, Any] | None,
        memory: UnwrittenMemory,
        filled: torch.Tensor | None,
    ) -> None:
        """Hold what an operator is about to be given, but for what it has `filled` then."""
        with paused():
            self.call = held = Held(
                room,
                args,
                kwargs,
                op=operator.name,
                random=operator.random,
                scratch=operator.scratch,
                limit=_LARGEST,
            )
            read = operator.read(args, kwargs)
            for position, tensor in enumerate(tensors_in(read)):
                self.given = position + 1
                if tensor is filled or memory.is_noise(tensor):
                    continue
                place = held.places.get(id(tensor)) if held.whole else None
                rows: list[Row] = []
                if place is None:
                    readings.take(rows, self.index, position, tensor)
                self.inputs.append((position, place, rows))
            self.plain = plain_arguments(read)

    def hold_outputs(self, room: Memory) -> None:
        """Hold what was written, as it is now."""
        if not self.written:
            return
        with paused():
            held = Held(room, [tensor for _, tensor in self.written], limit=_LARGEST)
        found = ((at, held.places.get(id(tensor))) for at, tensor in self.written)
        self.places = [(at, place) for at, place in found if place is not None]
        self.written = []
        self.outputs = held if held.whole else None

    def keep(self, sink: Revisable, readings: Readings) -> None:
        """Put what is held into the trace, as what is kept of an event that was asked for."""
        if self.call is not None:
            for position, place, rows in self.inputs:
                if place is not None:
                    readings.take(sink.inputs, self.index, position, self.call.tensor(place))
                sink.inputs.extend(rows)
            arguments = digest_of(self.plain)
            readings.value(sink.inputs, self.index, self.given, arguments, "arguments")
            readings.settle(wait=True)
            if self.call.whole:
                readings.keep_call(self.index, self.call.call)
            sink.attend(self.index)
        if self.outputs is not None:
            for position, place in self.places:
                readings.keep(self.index, position, self.outputs.tensor(place))
