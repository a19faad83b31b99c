"""The parts of a ring (`engine.ring`) on a CUDA device: our kernels, streams and events."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, cuda_graphs, views
from repro_audit.engine.cuda import queue
from repro_audit.engine.exchange import exchange
from repro_audit.engine.tags import TAGS
from repro_audit.errors import UnsupportedTensorError

if TYPE_CHECKING:
    import torch

    from repro_audit.engine.ring import Tables, Writer

# By device: all rings of one take their memory from it, one after the other.
_pools: dict[int, torch.cuda.MemPool] = {}


def _event() -> torch.cuda.Event:
    import torch

    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class _Writer:
    """A ring's launches; see `ring.Writer`."""

    def __init__(self, index: int) -> None:
        import torch

        self._index = index
        self._kernels = choice.kernels()
        self._capturing = torch.cuda.is_current_stream_capturing

    def check(self) -> None:
        """Raise while the current stream is being captured into a graph."""
        if self._capturing():
            cuda_graphs.refuse()

    def add(
        self, tensors: list[torch.Tensor], table: torch.Tensor, slot: int, stream: int
    ) -> list[tuple[int, int] | UnsupportedTensorError]:
        """Plain tensors in one launch, or two; the others one by one."""
        out = table.data_ptr() + 16 * slot
        index, kernels = self._index, self._kernels
        if len(tensors) == 1:
            found = [kernels.add_tensor(tensors[0], out, index, stream)]
        else:
            found = kernels.add_tensors(tensors, out, index, stream)
        return [
            self._resolved(t, out + 16 * at, stream) if taken is None else taken
            for at, (t, taken) in enumerate(zip(tensors, found, strict=True))
        ]

    def _resolved(
        self, t: torch.Tensor, out: int, stream: int
    ) -> tuple[int, int] | UnsupportedTensorError:
        with views.unseen():
            try:
                t = views.resolved(t)
            except UnsupportedTensorError as error:
                return error
            nbytes, tag = t.nbytes, TAGS[views.dtype_name(t)]
            if nbytes:
                place = (t.data_ptr(), tuple(t.shape), t.stride(), t.itemsize)
                self._kernels.add_strided(*place, 0, out, self._index, stream)
            return nbytes, tag


class _Clock:
    """A ring's streams and events; see `ring.Clock`.

    All that CUDA may refuse while some thread captures a graph is asked aside.
    """

    def __init__(
        self, device: torch.device, index: int, side: torch.cuda.Stream, tables: Tables
    ) -> None:
        import torch

        self._tables = tables
        self._index = index
        self._device = device
        self._current = torch._C._cuda_getCurrentRawStream
        self._side = side
        # First that of the tables' making, then that of each half's zeroing.
        self._events = [_event(), _event()]
        for event in self._events:
            event.record(torch.cuda.current_stream(device))

    def stream(self) -> int:
        """The calling thread's current stream."""
        found: int = self._current(self._index)
        return found

    def join(self, half: int, stream: int) -> None:
        """Order the stream behind the half's zeroing."""
        _stream_of(stream, self._device).wait_event(self._events[half])

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy and zero on our own stream, behind the others."""
        import torch

        table, host = self._tables[half]
        with cuda_graphs.aside():
            for stream in streams:
                event = _event()
                event.record(_stream_of(stream, self._device))
                self._side.wait_event(event)
            with torch.cuda.stream(self._side):
                host.copy_(table, non_blocking=True)
                table.zero_()
                self._events[half].record(self._side)

    def collected(self, half: int) -> bool:
        """Whether the copy is there."""
        with cuda_graphs.aside():
            return bool(self._events[half].query())  # type: ignore[no-untyped-call]

    def wait(self, half: int) -> None:
        """Wait for it."""
        with cuda_graphs.aside():
            self._events[half].synchronize()


def _stream_of(stream: int, device: torch.device) -> torch.cuda.Stream:
    import torch

    if not stream:
        return torch.cuda.default_stream(device)
    return torch.cuda.ExternalStream(stream, device=device)  # type: ignore[no-untyped-call]


@functools.cache
def _side(index: int) -> int:
    """The stream on which a device's rings are emptied. Not one of torch's pool: the program is
    given the streams that it would have been given.
    """
    stream: int = choice.kernels().make_stream(index)
    return stream


@contextmanager
def _apart(index: int) -> Iterator[None]:
    """What is allocated within is no part of the program's pools, where its allocator has others.

    The calling thread's current device is the pool's.
    """
    import torch

    pool = _pools.get(index)
    try:
        if pool is None:
            pool = _pools[index] = torch.cuda.MemPool()
            # A fork that let go of it would ask a driver for that which is not there.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))
        routing: Any = torch.cuda.use_mem_pool(pool, index)
        routing.__enter__()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # cudaMallocAsync, and allocators that a program brings, have but one pool.
        yield
        return
    try:
        yield
    finally:
        routing.__exit__(None, None, None)


def parts(device: torch.device, slots: int) -> tuple[Writer, _Clock, Tables]:
    """What a ring on a CUDA device is made of; its memory is no part of the program's pools."""
    import torch

    from repro_audit.engine.ring import TorchWriter

    kernels = choice.kernels(device.type)
    # A pool is the current device's, whatever device it is used for.
    with cuda_graphs.aside(), torch.cuda.device(device):
        index = torch.cuda.current_device()
        if kernels:
            queue(device)
            exchange(kernels)
            kernels.load(index)
        with _apart(index):
            tables = [
                (
                    torch.zeros(2 * slots, dtype=torch.int64, device=device),
                    torch.zeros(2 * slots, dtype=torch.int64, pin_memory=True),
                )
                for _ in range(2)
            ]
        if not kernels:
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            return TorchWriter(), _Clock(device, index, side, tables), tables
        side = _stream_of(_side(index), device)
        return _Writer(index), _Clock(device, index, side, tables), tables
