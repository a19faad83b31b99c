"""CUDA graphs under capture, and forks: what is asked of CUDA, and how; CUDA is a stand-in."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import cuda_graphs, cuda_ring, kernels, ring
from repro_audit.errors import UnsupportedTensorError

_GLOBAL, _RELAXED = 0, 2


class Cuda:
    """A driver and a runtime: the mode of the thread, whether it captures, its debug mode."""

    def __init__(self) -> None:
        self.mode = _GLOBAL
        self.capturing = False
        self.forked = False
        self.debug = 0
        self.asked: list[str] = []

    def cuThreadExchangeStreamCaptureMode(self, mode: Any) -> int:
        wanted = ctypes.cast(mode, ctypes.POINTER(ctypes.c_int))
        self.mode, wanted[0] = wanted[0], self.mode
        return 0

    def set_debug(self, mode: int) -> None:
        self.debug = mode

    def unsafe(self, what: str) -> None:
        """What costs a capture its life, and what a program may have forbidden."""
        assert self.mode == _RELAXED, what
        assert self.debug == 0, what
        self.asked.append(what)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    monkeypatch.setattr(kernels, "driver", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: not found.forked)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: found.forked)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: found.capturing)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: found.debug)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", found.set_debug)
    return found


def test_aside(cuda: Cuda) -> None:
    cuda.debug = 2
    with cuda_graphs.aside():
        cuda.unsafe("a question")
        with cuda_graphs.aside():
            cuda.unsafe("another")
        cuda.unsafe("and another")
    assert (cuda.mode, cuda.debug) == (_GLOBAL, 2)
    with pytest.raises(ZeroDivisionError), cuda_graphs.aside():
        1 / 0  # noqa: B018
    assert (cuda.mode, cuda.debug) == (_GLOBAL, 2)


def test_without_cuda_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "driver", lambda: 1 / 0)
    with cuda_graphs.aside():
        assert not engine.capturing()
    assert not cuda_graphs.captive()
    assert not cuda_graphs.failed()


def test_what_is_refused(cuda: Cuda) -> None:
    cuda_graphs.refuse()
    cuda.capturing = True
    with pytest.raises(UnsupportedTensorError, match="after a replay"):
        cuda_graphs.refuse()
    with pytest.raises(UnsupportedTensorError, match="after a replay"):
        ring.TorchWriter().check()
    cuda.forked = True
    with pytest.raises(UnsupportedTensorError, match=r"fork .* spawn"):
        cuda_graphs.refuse()


def test_memory_that_is_a_graphs(cuda: Cuda) -> None:
    assert not engine.captive()
    engine.routed(1)
    engine.routed(1)
    engine.routed(-1)
    assert engine.captive()
    assert not engine.capturing()
    engine.routed(-1)
    engine.routed(-1)
    assert not engine.captive()
    cuda.capturing = True
    assert engine.captive()


def test_a_capture_passes(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that was first wanted inside a capture is there after it."""
    made: list[torch.device] = []
    monkeypatch.setattr(ring, "Ring", lambda device: made.append(device) or "a ring")
    rings: ring.Rings[int] = ring.Rings()
    device = torch.device("cuda", 0)
    cuda.capturing = True
    for _ in range(2):
        with pytest.raises(UnsupportedTensorError, match="graph's capture"):
            rings.of(device)
    cuda.capturing = False
    assert rings.of(device) == "a ring"
    assert made == [device]


class Event:
    """An event that is recorded at once, and asked about aside."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def record(self, stream: Any) -> None:
        self._cuda.unsafe("record")

    def query(self) -> bool:
        self._cuda.unsafe("query")
        return True

    def synchronize(self) -> None:
        self._cuda.unsafe("synchronize")


class Stream:
    def wait_event(self, event: Event) -> None:
        pass


def test_a_ring_asks_aside(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        yield

    monkeypatch.setattr(cuda_ring, "_event", lambda: Event(cuda))
    monkeypatch.setattr(cuda_ring, "_stream_of", lambda stream, device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 7, raising=False)
    tables = [tuple(torch.zeros(8, dtype=torch.int64) for _ in range(2)) for _ in range(2)]
    with cuda_graphs.aside():
        clock = cuda_ring._Clock(torch.device("cpu"), 0, Stream(), tables)
        monkeypatch.setattr(ring, "_parts", lambda *given: (ring.TorchWriter(), clock, tables))
        found: ring.Ring[int] = ring.Ring(torch.device("cpu"), slots=4)
    cuda.debug = 1
    t = torch.arange(5.0)
    for n in range(9):
        found.add(t, n)
    # The program captures a graph from here on: its own thread fetches what there is.
    cuda.capturing = True
    got = dict(found.ready())
    got |= dict(found.ready(wait=True))
    assert got == dict.fromkeys(range(9), engine.tensor_digest(t))
    assert {"record", "query", "synchronize"} <= set(cuda.asked)
    assert (cuda.mode, cuda.debug) == (_GLOBAL, 1)


def test_an_allocator_without_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any) -> Any:
        raise NotImplementedError(
            "CUDAMallocAsyncAllocator does not yet support createOrIncrefPool"
        )

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(cuda_ring, "_pools", {})
    monkeypatch.setattr(torch.cuda, "MemPool", none)
    with cuda_ring._apart(0):
        made = torch.zeros(3)
    assert made.tolist() == [0, 0, 0]
    with pytest.raises(ZeroDivisionError), cuda_ring._apart(0):
        1 / 0  # noqa: B018
    monkeypatch.setattr(torch.cuda, "MemPool", full)
    with pytest.raises(torch.OutOfMemoryError), cuda_ring._apart(0):
        pass


def test_one_pool_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[Any, int]] = []

    @contextmanager
    def use(pool: Any, index: int) -> Iterator[None]:
        used.append((pool, index))
        yield

    monkeypatch.setattr(cuda_ring, "_pools", {})
    monkeypatch.setattr(torch.cuda, "MemPool", lambda: [len(used)])
    monkeypatch.setattr(torch.cuda, "use_mem_pool", use)
    for index in (0, 1, 0):
        with cuda_ring._apart(index):
            pass
    assert used == [([0], 0), ([1], 1), ([0], 0)]
    assert used[0][0] is used[2][0]


def test_a_fork_frees_nothing_of_a_ring() -> None:
    """Pinned memory that a fork frees ends its process: CUDA is asked for an event."""

    class Pinned:
        def __del__(self) -> None:
            os.write(writing, b"freed")

    reading, writing = os.pipe()
    rings: ring.Rings[int] = ring.Rings()
    rings._rings[torch.device("cpu")] = Pinned()  # type: ignore[assignment]
    child = os.fork()
    if not child:
        rings = ring.Rings()
        gc.collect()
        os.write(writing, b"lived")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 100) == b"lived"
    del rings
    assert os.read(reading, 100) == b"freed"
    os.close(reading)
    os.close(writing)


def test_no_memory_to_read_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro_audit.engine import devices, torch_ops, views

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch_ops, "add_stream", full)
        sums = torch.zeros(2, dtype=torch.int64)
        (problem,) = ring.TorchWriter().add([torch.ones(3)], sums, 0, 0)
        assert "No memory is left on cpu" in str(problem)
    with monkeypatch.context() as patch:
        patch.setattr(torch_ops, "gathered", full)
        with pytest.raises(UnsupportedTensorError, match="No memory is left"):
            devices.gathered(torch.ones(3), 2)
    monkeypatch.setattr(views, "_resolved", full)
    with pytest.raises(UnsupportedTensorError, match="No memory is left"):
        views.resolved(torch.ones(3))


def test_a_device_that_failed(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Stream):
        def query(self) -> bool:
            cuda.unsafe("query")
            raise RuntimeError("CUDA error: device-side assert triggered")

    class Whole(Stream):
        def query(self) -> bool:
            return False

    monkeypatch.setattr(torch.cuda, "current_stream", Broken)
    assert cuda_graphs.failed()
    monkeypatch.setattr(torch.cuda, "current_stream", Whole)
    assert not cuda_graphs.failed()


def test_cupy_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def toolkit(self) -> int:
            raise ImportError("libnvrtc.so.12: cannot open shared object file")

    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels, "driver_version", lambda: 13000)
    monkeypatch.setattr(kernels, "module", lambda name: Broken())
    said = kernels.problem.__wrapped__("cupy")
    assert said == "CuPy does not load: ImportError: libnvrtc.so.12: cannot open shared object file"
