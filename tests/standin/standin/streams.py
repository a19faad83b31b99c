"""Streams, events and graphs, as `torch.cuda` has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from standin.native import KIND, native

# c10::DeviceType
_TYPE = {"cuda": 1, "xpu": 12, "mps": 13}.get(KIND, 20)
_POOL = (0, 1)


def module() -> Any:
    """`torch.cuda`, or what it is for other devices."""
    return getattr(torch, KIND)


def index_of(device: Any = None) -> int:
    """A device's number; the current one's where none is named."""
    if isinstance(device, int):
        return device
    found = None if device is None else torch.device(device).index
    return int(module().current_device()) if found is None else found


class Stream(torch.Stream):
    """`torch.cuda.Stream`."""

    def __new__(cls, device: Any = None, priority: int = 0, **known: Any) -> Any:
        if known:
            return super().__new__(cls, **known)
        return super().__new__(cls, torch.device(KIND, index_of(device)), priority=priority)

    @property
    def cuda_stream(self) -> int:
        """What a launch takes."""
        return self.stream_id


def _stream(number: int, index: int) -> Stream:
    found: Stream = Stream.__new__(Stream, stream_id=number, device_index=index, device_type=_TYPE)
    return found


class ExternalStream(Stream):
    """`torch.cuda.ExternalStream`."""

    def __new__(cls, stream_ptr: int, device: Any = None) -> Any:
        return _stream(stream_ptr, index_of(device))


class Event(torch.Event):
    """`torch.cuda.Event`."""

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, **_: Any) -> Any:
        return super().__new__(cls, KIND, enable_timing=enable_timing, blocking=blocking)

    def record(self, stream: Any = None) -> None:
        """On the current stream where none is named, as `wait`."""
        super().record(_current() if stream is None else stream)

    def wait(self, stream: Any = None) -> None:
        super().wait(_current() if stream is None else stream)

    def elapsed_time(self, end: Any) -> float:
        """There is no time to tell."""
        return 1.0


def _current(device: Any = None) -> Stream:
    index = index_of(device)
    return _stream(native.current_stream(index), index)


@contextlib.contextmanager
def _on(stream: Stream | None) -> Iterator[None]:
    with contextlib.nullcontext() if stream is None else stream:
        yield


class CUDAGraph:
    """`torch.cuda.CUDAGraph`: does again what operators did while it was captured."""

    def __new__(cls, keep_graph: bool = False) -> Any:
        return super().__new__(cls)

    def __init__(self, keep_graph: bool = False) -> None:
        self._graph = native.graph()

    def capture_begin(self, pool: Any = None, **_: Any) -> None:
        native.begin_capture(self._graph)

    def capture_end(self) -> None:
        native.end_capture(self._graph)

    def replay(self) -> None:
        native.replay(self._graph)

    def reset(self) -> None:
        """Nothing is let go of."""

    def pool(self) -> tuple[int, int]:
        return _POOL


class _Pool:
    id = _POOL


@contextlib.contextmanager
def _use_mem_pool(pool: Any, device: Any = None) -> Iterator[None]:
    """All memory is of one pool."""
    yield


STREAMS = {
    "Stream": Stream,
    "ExternalStream": ExternalStream,
    "Event": Event,
    "stream": _on,
    "current_stream": _current,
    "default_stream": lambda device=None: _stream(0, index_of(device)),
    "is_current_stream_capturing": lambda: bool(native.capturing()),
    "CUDAGraph": CUDAGraph,
    "graph_pool_handle": lambda: _POOL,
    "MemPool": _Pool,
    "use_mem_pool": _use_mem_pool,
}
