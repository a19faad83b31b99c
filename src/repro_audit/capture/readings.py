"""What events' tensors are: fingerprints, taken at once on the host and later elsewhere; copies."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture import parts
from repro_audit.capture.guards import paused
from repro_audit.capture.lockstep import Watched
from repro_audit.errors import UnsupportedTensorError

if TYPE_CHECKING:
    from repro_audit.capture.calls import Call
    from repro_audit.capture.sink import Row, Sink

# Larger than any activation worth an ULP figure; a capture is held in one SQLite transaction.
_PAYLOAD_LIMIT = 2 << 30
# Up to here a copy costs less than asking a tensor for its memory in Python.
_SMALL = 64 << 10

# What the kept bytes of an event are: memory that its arguments lie in, an output's row-major
# stream, the state of a generator.
MEMORY, OUTPUT, STATE = range(3)

# Takes a digest when it is there; None where there is none to have.
_Take = Callable[[bytes | None], None]


class Readings:
    """Reads tensors for the events of a recorder, into the lists of its sink.

    A tensor of the host is fingerprinted at once. Of one that is on a device that is begun, and its
    row follows when `settle` finds the digest there; at no tensor is the device waited for.
    `unobserved` counts what could not be read, by reason.
    """

    def __init__(self, sink: Sink, unobserved: Counter[str]) -> None:
        self._unobserved = unobserved
        self._local = threading.local()
        self._begin(sink)

    def use(self, sink: Sink) -> None:
        """In a fork: read into another sink from now on; what has not come back is forgotten."""
        self.leave()
        self._begin(sink)

    def _begin(self, sink: Sink) -> None:
        self._sink = sink
        self._specs: dict[tuple[Any, ...], int] = {}
        self._rings: engine.Rings[_Take] = engine.Rings()

    def leave(self) -> None:
        """Never let go of what is under way: CUDA, which that asks, answers no more."""
        self._rings.leave()

    def take(
        self,
        rows: list[Row],
        index: int,
        position: int,
        tensor: torch.Tensor,
        *,
        read: bool = True,
        name: str | None = None,
        digest: bytes | None = None,
        bits: torch.Tensor | None = None,
    ) -> None:
        """A row of one of the sink's lists for a tensor of event `index`; its digest if `read`, or
        the one given. `bits` is a tensor that has the same, where this one has them only later.
        """
        spec = self.spec_of(tensor)
        if read and digest is None:
            source = tensor if bits is None else bits
            digest = engine.plain_digest(source)
            if digest is None:
                if isinstance(rows, Watched):
                    rows.awaits(index)
                with paused():
                    self._digest(source, _row(rows, index, position, spec, name))
                return
        rows.append((index, position, spec, digest, name))

    def value(
        self, rows: list[Row], index: int, position: int, digest: bytes, name: str | None
    ) -> None:
        """A row for a plain value, whose digest is ready."""
        rows.append((index, position, self._sink.spec("python", (), "cpu"), digest, name))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tensors of a device that are taken within are begun at the end, in one launch."""
        gathered: list[tuple[torch.Tensor, _Take]] = []
        self._local.gathered = gathered
        try:
            yield
        finally:
            self._local.gathered = None
            if gathered:
                with paused():
                    self._begin_all(gathered)

    def settle(self, *, wait: bool = False) -> None:
        """Complete the rows whose digests have come back; with `wait` all of them."""
        for take, digest in self._rings.ready(wait=wait):
            take(digest)

    def keep(self, index: int, position: int, tensor: torch.Tensor) -> None:
        """Keep an output's bits. Waits for its device."""
        if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.is_meta:
            return
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes > _PAYLOAD_LIMIT:
            self._unobserved["capture over 2 GiB"] += 1
            return
        small = engine.plain_sample(tensor, tensor.numel()) if nbytes <= _SMALL else None
        if small is not None:
            self._sink.payload(index, OUTPUT, position, memoryview(small))
            return
        try:
            flat = engine.fetched(tensor)
        except UnsupportedTensorError:
            # Without memory, or in a graph's capture: what is said of its digest holds of its bits.
            return
        self._sink.payload(index, OUTPUT, position, _bytes_of(flat))

    def keep_call(self, index: int, call: Call) -> None:
        """Keep a call and the memory of its arguments, before it is made. Waits for its device."""
        if call.nbytes > _PAYLOAD_LIMIT:
            self._unobserved["capture over 2 GiB"] += 1
            return
        self._sink.call(index, call.json)
        for position, span in enumerate(call.spans):
            with engine.aside():
                memory = span.bytes()
            self._sink.payload(index, MEMORY, position, _bytes_of(memory))
        for position, state in enumerate(call.states):
            self._sink.payload(index, STATE, position, _bytes_of(state))

    def _digest(self, tensor: torch.Tensor, take: _Take) -> None:
        """Have `take` called with the digest of any tensor, or of what it is made of."""
        try:
            if not engine.stays(tensor):
                digest = engine.tensor_digest(tensor)
            elif (gathered := getattr(self._local, "gathered", None)) is not None:
                gathered.append((tensor, take))
                return
            else:
                self._rings.of(tensor.device).add(tensor, take)
                return
        except UnsupportedTensorError as error:
            self._digest_parts(tensor, take, error)
        else:
            take(digest)

    def _digest_parts(
        self, tensor: torch.Tensor, take: _Take, error: UnsupportedTensorError
    ) -> None:
        made_of = parts.of(tensor)
        if made_of is None:
            if parts.has_bits(tensor):
                self._unobserved[str(error)] += 1
            take(None)
            return
        found: dict[int, bytes | None] = {}
        forms = [(part.dtype, tuple(part.shape)) for part in made_of]
        layout = tensor.layout

        def taken(at: int, digest: bytes | None) -> None:
            found[at] = digest
            if len(found) < len(forms):
                return
            digests = [digest for _, digest in sorted(found.items()) if digest is not None]
            whole = len(digests) == len(forms)
            take(parts.combined(layout, forms, digests) if whole else None)

        for at, part in enumerate(made_of):
            self._digest(part, functools.partial(taken, at))

    def _begin_all(self, gathered: list[tuple[torch.Tensor, _Take]]) -> None:
        devices: dict[torch.device, list[tuple[torch.Tensor, _Take]]] = {}
        for entry in gathered:
            devices.setdefault(entry[0].device, []).append(entry)
        for device, entries in devices.items():
            try:
                ring = self._rings.of(device)
                problems = ring.add_all([t for t, _ in entries], [take for _, take in entries])
            except UnsupportedTensorError as error:  # while a graph is captured
                problems = [error] * len(entries)
            for (tensor, take), problem in zip(entries, problems, strict=True):
                if problem is not None:
                    self._digest_parts(tensor, take, problem)

    def spec_of(self, tensor: torch.Tensor) -> int:
        """Number of a tensor's dtype, shape and device."""
        try:
            key = (tensor.dtype, tensor.shape, tensor.device)
            spec = self._specs.get(key)
            if spec is None:
                spec = self._specs[key] = self._new_spec(tensor, tuple(map(int, tensor.shape)))
            return spec
        except (AttributeError, RuntimeError, TypeError):
            # The shape of a nested tensor is no list of numbers.
            return self._new_spec(tensor, ())

    def _new_spec(self, tensor: torch.Tensor, shape: tuple[int, ...]) -> int:
        return self._sink.spec(str(tensor.dtype).removeprefix("torch."), shape, str(tensor.device))


def _row(rows: list[Row], index: int, position: int, spec: int, name: str | None) -> _Take:
    """Appends the row once its digest is there."""

    def take(digest: bytes | None) -> None:
        rows.append((index, position, spec, digest, name))

    return take


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the host."""
    nbytes = tensor.numel() * tensor.element_size()
    return memoryview((ctypes.c_ubyte * nbytes).from_address(tensor.data_ptr())).cast("B")
