"""The parts of a ring (`engine.ring`) on a CUDA device: our kernels, streams and events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.engine import choice, views
from repro_audit.engine.cuda import queue, refuse_capture
from repro_audit.engine.exchange import exchange
from repro_audit.engine.tags import TAGS
from repro_audit.errors import UnsupportedTensorError

if TYPE_CHECKING:
    import torch

    from repro_audit.engine.ring import Tables

# A pool must outlive its memory.
_pools: list[torch.cuda.MemPool] = []


def _event() -> torch.cuda.Event:
    import torch

    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class _Writer:
    """A ring's launches; see `ring.Writer`."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._kernels = choice.kernels()

    def check(self) -> None:
        """Raise while the current stream is being captured into a graph."""
        refuse_capture()

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
    """A ring's streams and events; see `ring.Clock`."""

    def __init__(self, device: torch.device, index: int, tables: Tables) -> None:
        import torch

        self._tables = tables
        self._index = index
        self._device = device
        self._current = torch._C._cuda_getCurrentRawStream
        # Not one of torch's pool: the program is given the streams that it would have been given.
        self._side = self._of(choice.kernels().make_stream(index))
        # First that of the tables' making, then that of each half's zeroing.
        self._events = [_event(), _event()]
        for event in self._events:
            event.record(torch.cuda.current_stream(device))

    def _of(self, stream: int) -> torch.cuda.Stream:
        import torch

        if not stream:
            return torch.cuda.default_stream(self._device)
        return torch.cuda.ExternalStream(stream, device=self._device)  # type: ignore[no-untyped-call]

    def stream(self) -> int:
        """The calling thread's current stream."""
        found: int = self._current(self._index)
        return found

    def join(self, half: int, stream: int) -> None:
        """Order the stream behind the half's zeroing."""
        self._of(stream).wait_event(self._events[half])

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy and zero on our own stream, behind the others."""
        import torch

        for stream in streams:
            event = _event()
            event.record(self._of(stream))
            self._side.wait_event(event)
        table, host = self._tables[half]
        with torch.cuda.stream(self._side):
            host.copy_(table, non_blocking=True)
            table.zero_()
            self._events[half].record(self._side)

    def collected(self, half: int) -> bool:
        """Whether the copy is there."""
        return bool(self._events[half].query())  # type: ignore[no-untyped-call]

    def wait(self, half: int) -> None:
        """Wait for it."""
        self._events[half].synchronize()


def parts(device: torch.device, slots: int) -> tuple[_Writer, _Clock, Tables]:
    """What a ring on a CUDA device is made of; its memory is no part of the program's pools."""
    import torch

    index, _ = queue(device)
    exchange(choice.kernels())
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool, device):
        tables = [
            (
                torch.zeros(2 * slots, dtype=torch.int64, device=device),
                torch.zeros(2 * slots, dtype=torch.int64, pin_memory=True),
            )
            for _ in range(2)
        ]
    _pools.append(pool)
    return _Writer(index), _Clock(device, index, tables), tables
