"""Digests that are begun on a device and read back later, in bulk: at no op does anybody wait.

A device has a ring of two halves. Each tensor gets a slot of the half in use, to which its kernel,
launched on the program's own stream, adds two lanes. A full half is copied to pinned memory and
zeroed on a stream of our own, behind the streams that wrote to it, while the other half is used. It
is read when its copy is there. Only where the program is more than a half ahead of its device does
a turn wait: an overflow costs a wait, never a digest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from repro_audit.engine import accelerators, choice, cuda_graphs, queues, views
from repro_audit.engine.tags import TAGS
from repro_audit.errors import EngineError, UnsupportedTensorError

if TYPE_CHECKING:
    import torch

_Token = TypeVar("_Token")
_MASK = (1 << 64) - 1

# Of each half; 16 bytes a slot on the device, and as much pinned memory on the host.
SLOTS = 1 << 14


class Clock(Protocol):
    """What orders the work on a device's streams."""

    def stream(self) -> int:
        """The calling thread's current stream."""

    def join(self, half: int, stream: int) -> None:
        """What `stream` does from now on comes after the zeroing of a half."""

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy a half to the host and zero it, after what these streams do now, without a wait."""

    def collected(self, half: int) -> bool:
        """Whether the copy is there."""

    def wait(self, half: int) -> None:
        """Wait until it is."""


@dataclass(slots=True, eq=False)
class _Half(Generic[_Token]):
    table: torch.Tensor
    host: torch.Tensor
    taken: list[tuple[_Token, int, int, int]] = field(default_factory=list)
    streams: set[int] = field(default_factory=set)
    used: int = 0
    collecting: bool = False


class Ring(Generic[_Token]):
    """The ring of one device. Tokens come back with their tensors' digests, in the order taken.

    Any thread may call any method. `waits` counts the turns that had to wait for the device.
    """

    def __init__(self, device: torch.device, *, slots: int = SLOTS) -> None:
        """Allocates the ring, on CUDA apart from the program's memory; proves the engine there.

        Raises EngineError where there is no memory for it or the engine answers wrongly, and
        UnsupportedTensorError for a device that lacks the operations.
        """
        self.waits = 0
        self._slots = slots
        self._lock = threading.RLock()
        self._ready: list[tuple[_Token, bytes]] = []
        self._at = 0
        self._writer, self._clock, tables = _parts(device, slots)
        self._halves: list[_Half[_Token]] = [_Half(table, host) for table, host in tables]

    def add(self, t: torch.Tensor, token: _Token) -> None:
        """Begin the digest, key 0, of a tensor of this device, as it is now on the current stream.

        Raises UnsupportedTensorError as `tensor_digest` does, and while the stream is captured into
        a graph: what it computes has no values yet.
        """
        (problem,) = self.add_all([t], [token])
        if problem is not None:
            raise problem

    def add_all(
        self, tensors: Sequence[torch.Tensor], tokens: Sequence[_Token]
    ) -> list[UnsupportedTensorError | None]:
        """As `add` for each, in one launch where they are contiguous; what `add` would raise for
        those that have no digest, whose tokens do not come back.
        """
        problems: list[UnsupportedTensorError | None] = []
        with self._lock:
            self._writer.check()
            for first in range(0, len(tensors), self._slots):
                some = list(tensors[first : first + self._slots])
                half = self._with_room(len(some))
                slot = half.used
                # Taken whatever happens: a slot that was half written is none to give again.
                half.used += len(some)
                found = self._writer.add(some, half.table, slot, self._stream(half))
                for at, taken in enumerate(found):
                    if isinstance(taken, UnsupportedTensorError):
                        problems.append(taken)
                    else:
                        problems.append(None)
                        half.taken.append((tokens[first + at], slot + at, *taken))
        return problems

    def ready(self, *, wait: bool = False) -> list[tuple[_Token, bytes]]:
        """Tokens and 16-byte digests that have come back since the last call; with `wait` all."""
        with self._lock:
            if wait:
                self._collect(self._at)
            # The half not in use is the older one.
            for at in (1 - self._at, self._at):
                half = self._halves[at]
                if half.collecting and wait:
                    self._clock.wait(at)
                if half.collecting and (wait or self._clock.collected(at)):
                    self._read(half)
            found, self._ready = self._ready, []
            return found

    def _with_room(self, count: int) -> _Half[_Token]:
        half = self._halves[self._at]
        if half.used + count <= self._slots and not half.collecting:
            return half
        self._collect(self._at)
        self._at = 1 - self._at
        half = self._halves[self._at]
        if half.collecting:
            if not self._clock.collected(self._at):
                self.waits += 1
                self._clock.wait(self._at)
            self._read(half)
        return half

    def _stream(self, half: _Half[_Token]) -> int:
        stream = self._clock.stream()
        if stream not in half.streams:
            self._clock.join(self._at, stream)
            half.streams.add(stream)
        return stream

    def _collect(self, at: int) -> None:
        half = self._halves[at]
        if half.used and not half.collecting:
            with views.unseen():
                self._clock.collect(at, half.streams)
            half.collecting = True

    def _read(self, half: _Half[_Token]) -> None:
        with views.unseen():
            lanes = half.host.tolist()
        finalize = choice.engine().finalize
        for token, slot, nbytes, tag in half.taken:
            pair = lanes[2 * slot] & _MASK, lanes[2 * slot + 1] & _MASK
            self._ready.append((token, finalize(*pair, nbytes, tag)))
        half.taken.clear()
        half.streams.clear()
        half.used = 0
        half.collecting = False


class Rings(Generic[_Token]):
    """A ring for each device that a tensor comes from, made at the first."""

    def __init__(self) -> None:
        self._rings: dict[torch.device, Ring[_Token]] = {}
        self._problems: dict[torch.device, str] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def of(self, device: torch.device) -> Ring[_Token]:
        """The device's ring; raises as `Ring` does, at each call anew, and while a graph that the
        calling thread captures stands in the way of one.
        """
        ring = self._rings.get(device)
        if ring is not None:
            return ring
        with self._lock, views.unseen():
            if device in self._problems:
                raise UnsupportedTensorError(self._problems[device])
            # Not for ever, as what a device lacks.
            cuda_graphs.refuse()
            if device not in self._rings:
                try:
                    self._rings[device] = Ring(device)
                except UnsupportedTensorError as problem:
                    self._problems[device] = str(problem)
                    raise
            return self._rings[device]

    def ready(self, *, wait: bool = False) -> list[tuple[_Token, bytes]]:
        """As `Ring.ready`, of all devices."""
        rings = list(self._rings.values())
        return [entry for ring in rings for entry in ring.ready(wait=wait)]

    def leave(self) -> None:
        """Never let go of the rings: in a fork, or where the device has failed.

        To free pinned memory asks CUDA for an event; where it gives none torch ends the process.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._rings))


_all: weakref.WeakSet[Rings[Any]] = weakref.WeakSet()


def _left() -> None:
    for rings in list(_all):
        rings.leave()


os.register_at_fork(after_in_child=_left)


class Writer(Protocol):
    """What begins digests."""

    def check(self) -> None:
        """Raise UnsupportedTensorError where nothing can be begun now."""

    def add(
        self, tensors: list[torch.Tensor], table: torch.Tensor, slot: int, stream: int
    ) -> list[tuple[int, int] | UnsupportedTensorError]:
        """Add the lanes of tensors to the slots from `slot` on; each one's bytes and tag."""


class TorchWriter:
    """Adds lanes by torch's own operations."""

    def check(self) -> None:
        """Raise while the current stream is being captured into a graph."""
        cuda_graphs.refuse()

    def add(
        self, tensors: list[torch.Tensor], table: torch.Tensor, slot: int, stream: int
    ) -> list[tuple[int, int] | UnsupportedTensorError]:
        """One after the other."""
        with views.unseen():
            return [self._add(t, table[2 * (slot + at) :]) for at, t in enumerate(tensors)]

    def _add(self, t: torch.Tensor, out: torch.Tensor) -> tuple[int, int] | UnsupportedTensorError:
        import torch

        from repro_audit.engine import torch_ops

        try:
            t = views.resolved(t)
        except UnsupportedTensorError as error:
            return error
        try:
            torch_ops.add_stream(torch_ops.flat_bytes(t), 0, 0, out[:2])
        except NotImplementedError as error:
            return _lacking(t.device, error)
        except torch.OutOfMemoryError:
            return views.without_room(t)
        return t.nbytes, TAGS[views.dtype_name(t)]


class Here:
    """The clock of a device with one queue: copies wait for it."""

    def __init__(self, copy: Callable[[int], None]) -> None:
        self._copy = copy

    def stream(self) -> int:
        """The only one."""
        return 0

    def join(self, half: int, stream: int) -> None:
        """Always so."""

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy now."""
        self._copy(half)

    def collected(self, half: int) -> bool:
        """Always."""
        return True

    def wait(self, half: int) -> None:
        """Nothing to wait for."""


def _lacking(device: torch.device, error: NotImplementedError) -> UnsupportedTensorError:
    said = str(error).partition(".")[0]
    return UnsupportedTensorError(
        f"A tensor on {device}, which lacks what a digest takes ({said}). "
        f"{choice.VARIABLE}=portable fingerprints copies on the host."
    )


Tables = list[tuple[Any, Any]]


def _parts(device: torch.device, slots: int) -> tuple[Writer, Clock, Tables]:
    """What a device's ring is made of: its streams and events, else a queue that is waited for; our
    kernels where they run, else torch's operations.
    """
    import torch

    # What is made in inference mode could not be written to outside it.
    with torch.inference_mode(False):
        return _made(device, slots)


def _made(device: torch.device, slots: int) -> tuple[Writer, Clock, Tables]:
    import torch

    try:
        if device.type == "cuda":
            from repro_audit.engine import cuda_ring

            return cuda_ring.parts(device, slots)
        streams = queues.current(device) is not None
        tables = [
            (torch.zeros(2 * slots, dtype=torch.int64, device=device), _host(2 * slots, streams))
            for _ in range(2)
        ]
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"No memory is left on {device} for the {32 * slots >> 10} KiB that digests go to. "
            f"Give the program a smaller batch, or set {choice.VARIABLE}=portable to fingerprint "
            "on the host."
        ) from error
    except NotImplementedError as error:
        raise _lacking(device, error) from error

    accelerators.note_use(device.type)
    if streams:
        with contextlib.suppress(NotImplementedError, RuntimeError):
            return TorchWriter(), queues.Clock(device, tables), tables

    def copy(half: int) -> None:
        table, host = tables[half]
        host.copy_(table)
        table.zero_()

    return TorchWriter(), Here(copy), tables


def _host(count: int, pinned: bool) -> torch.Tensor:
    """Memory that a device copies to while nobody waits, where its maker has such."""
    import torch

    try:
        return torch.zeros(count, dtype=torch.int64, pin_memory=pinned)
    except (NotImplementedError, RuntimeError):
        return torch.zeros(count, dtype=torch.int64)
