"""Tensors on other devices, on a machine that has none: torch's operations on the CPU's tensors,
and the code around the CUDA kernels with the native engine in the kernels' place.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np
import pytest
import torch

from repro_audit import _engine, engine
from repro_audit.engine import TAGS, choice, cuda, devices, torch_ops, views
from repro_audit.engine import kernels as kernel_modules
from repro_audit.errors import EngineError, UnsupportedTensorError

_MASK = (1 << 64) - 1


class HostKernels:
    """What `repro_audit._cuda` does, on the host's memory."""

    RECORD_BYTES = 680
    wrong = 0

    def _add(self, out: int, lanes: tuple[int, int]) -> None:
        sums = (ctypes.c_uint64 * 2).from_address(out)
        for i in (0, 1):
            sums[i] = (sums[i] + lanes[i] + self.wrong) & _MASK

    def add_range(
        self, address: int, nbytes: int, offset: int, key: int, out: int, *queue: int
    ) -> None:
        self._add(out, _engine.lanes(address, nbytes, offset, key))

    def add_strided(
        self, address: int, sizes: Any, strides: Any, item: int, key: int, out: int, *queue: int
    ) -> None:
        zeros = [0] * len(sizes)
        self._add(out, _engine.lanes_box(address, sizes, strides, item, sizes, zeros, key))

    def add_multiset(
        self, address: int, sizes: Any, strides: Any, item: int, key: int, out: int, *queue: int
    ) -> None:
        self._add(out, _engine.multiset(address, sizes, strides, item, key))

    def add_table(self, places: list[tuple[int, int]], key: int, out: int, *queue: int) -> None:
        for i, (address, nbytes) in enumerate(places):
            self._add(out + 16 * i, _engine.lanes(address, nbytes, 0, key))

    def sample(
        self, address: int, sizes: Any, strides: Any, item: int, count: int, out: int, *queue: int
    ) -> None:
        found = _engine.sample(address, sizes, strides, item, count)
        ctypes.memmove(out, found, len(found))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> HostKernels:
    """The CPU's tensors go the way of a CUDA device's."""
    fake = HostKernels()
    monkeypatch.setattr(choice, "kernels", lambda kind="cuda": fake)
    monkeypatch.setattr(choice, "name_for", lambda kind: "cuda")
    monkeypatch.setattr(cuda, "queue", lambda device: (0, 0))
    return fake


def _tensors() -> list[torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 40, 24)
    z = torch.randn(5, 7, dtype=torch.complex64)
    return [
        base,
        base.transpose(0, 2),
        base[:, ::3],
        base[0, 0].expand(3, 24),
        base.to(torch.bfloat16)[1:, :, 1:],
        z,
        z.conj(),
        z.conj().imag,
        torch.arange(10) > 3,
        torch.empty(0, 3),
        torch.tensor(2.5, requires_grad=True) * 1,
        base.to(torch.float8_e4m3fn),
        torch._efficientzerotensor(3, 4),
    ]


@pytest.fixture
def expected() -> list[tuple[bytes, bytes]]:
    return [(engine.tensor_digest(t), engine.multiset_digest(t)) for t in _tensors()]


def _samples() -> list[bytes]:
    return [devices.sample(t, 5) for t in _tensors()]


def test_samples(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [engine.sample(t, 5) for t in _tensors()]
    assert [len(taken) for taken in expected].count(0) == 1
    assert _samples() == expected
    monkeypatch.setattr(choice, "name_for", lambda kind: "torch")
    assert _samples() == expected


def test_the_kernels_route(expected: list[tuple[bytes, bytes]], kernels: HostKernels) -> None:
    with views.unseen():
        assert devices.digests(_tensors()) == [digest for digest, _ in expected]
    for t, (digest, multiset) in zip(_tensors(), expected, strict=True):
        assert devices.digest(t) == digest
        assert devices.multiset(t, 0, 256) == multiset


def test_torch_operations_route(expected: list[tuple[bytes, bytes]]) -> None:
    engine.select("torch")
    try:
        assert devices.digests(_tensors()) == [digest for digest, _ in expected]
        for t, (digest, multiset) in zip(_tensors(), expected, strict=True):
            assert devices.digest(t) == digest
            assert devices.multiset(t, 0, 256) == multiset
    finally:
        engine.select(None)


def test_pieces_of_a_long_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ops, "_PIECE_BLOCKS", 3)
    data = torch.arange(100_000).to(torch.uint8)
    for offset in (0, 1, 1023, 1024, 5000):
        for piece in (data, data[1:70_001]):
            found = torch_ops.stream_lanes(piece, offset, 5)
            assert found == _engine.lanes(piece.data_ptr(), piece.numel(), offset, 5)
    for item in (1, 2, 4, 8, 16):
        found = torch_ops.multiset_lanes(data[:96_000], item, 5)
        count = 96_000 // item
        assert found == _engine.multiset(data.data_ptr(), (count,), (1,), item, 5)


def test_what_cannot_be_read(kernels: HostKernels) -> None:
    gone = torch.randn(8)
    gone.untyped_storage().resize_(0)
    for t in (gone, torch.eye(3).to_sparse(), torch.empty(2, device="meta")):
        with pytest.raises(UnsupportedTensorError):
            devices.digest(t)


def test_a_wrong_kernel_is_refused(kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a device")
    monkeypatch.setattr(torch, "device", lambda *a: torch.tensor(0).device)
    cuda._check(torch.tensor(0).device)
    kernels.wrong = 1
    with pytest.raises(EngineError, match="answer wrongly on a device"):
        cuda._check(torch.tensor(0).device)


def test_no_operation_is_seen() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            Seen.count += 1
            return func(*args, **(kwargs or {}))

    t = torch.randn(300, 7).t()
    engine.select("torch")
    try:
        with Seen():
            devices.digest(t)
            engine.tensor_digest(t)
    finally:
        engine.select(None)
    assert Seen.count == 0


def test_records_are_merged() -> None:
    """Two records as the kernel writes them: field for field `Divergence` of ulp.hpp."""
    none = _MASK

    def record(index: int, ulp: int, first: int) -> bytes:
        figures = (0, 2, 0, 0, 1, 0, 0, 1, 0, ulp, index)
        histogram = [0] * 65
        histogram[0], histogram[ulp.bit_length()] = 1, 1
        return struct.pack(
            "<11Q2dQ2d2Q2d65Q",
            *figures,
            1.0,
            2.0,
            first,
            3.0,
            4.0,
            ulp,
            0,
            0.5,
            0.25,
            *histogram,
        )

    empty = struct.pack("<11Q2dQ2d2Q2d65Q", *[0] * 10, none, 0, 0, none, *[0] * 6, *[0] * 65)
    records = record(9, 5, 7) + empty + record(4, 5, 4)
    found = _engine.ulp_merge(np.frombuffer(records, np.uint8), 100)
    assert (found["numel"], found["differing"], found["max_ulp"]) == (100, 4, 5)
    assert (found["max_index"], found["first_index"], found["sum_ulp"]) == (4, 4, 10)
    assert found["histogram"][0] == 100 - 4 + 2
    assert found["histogram"][3] == 2
    with pytest.raises(ValueError, match="whole records"):
        _engine.ulp_merge(np.zeros(679, np.uint8), 1)
    with pytest.raises(ValueError, match="whole records"):
        _engine.ulp_merge(np.zeros(1360, np.uint8)[::2], 1)


@pytest.mark.skipif(kernel_modules.compiled() is None, reason="built without nvcc")
def test_the_module_of_kernels() -> None:
    kernels = kernel_modules.compiled()
    assert kernels.RECORD_BYTES == 680
    assert kernels.toolkit() >= 12000
    assert TAGS["float32"] == 12


@pytest.mark.parametrize(
    ("name", "toolkit", "driver", "words"),
    [
        ("cuda", None, 13000, "no CUDA kernels"),
        ("cuda", 13000, 0, "no NVIDIA driver"),
        ("cuda", 13000, 12080, "compiled with CUDA 13.0 and the driver knows 12.8"),
        ("cuda", 13010, 13000, ""),
        ("cupy", None, 13000, r"CuPy is not installed; pip install 'repro-audit[cuda13]'"),
        ("cupy", 13000, 0, "no NVIDIA driver"),
        ("cupy", 13000, 12080, "install CuPy for CUDA 12"),
        ("cupy", 13010, 13000, ""),
    ],
)
def test_why_kernels_cannot_run(
    monkeypatch: pytest.MonkeyPatch, name: str, toolkit: int | None, driver: int, words: str
) -> None:
    class Kernels:
        def toolkit(self) -> Any:
            return toolkit

    there = Kernels() if toolkit else None
    monkeypatch.setattr(kernel_modules, "compiled", lambda: there)
    monkeypatch.setattr(kernel_modules, "find_spec", lambda name: there)
    monkeypatch.setattr(kernel_modules, "module", lambda name: there)
    monkeypatch.setattr(kernel_modules, "driver_version", lambda: driver)
    problem = kernel_modules.problem.__wrapped__(name)
    assert words in problem
    assert bool(problem) == bool(words)
    monkeypatch.setattr(kernel_modules, "problem", lambda name: problem)
    if problem:
        with pytest.raises(EngineError, match=rf"{name}.*not available here"):
            engine.select(name)


def test_memory_that_is_not_there_is_not_read() -> None:
    """A kernel would read it wherever it is, and end the program's use of its device."""
    from repro_audit.engine import views

    freed = torch.arange(100.0)
    middle = freed[50:60]
    freed.untyped_storage().resize_(0)
    for t in (freed, middle):
        with pytest.raises(UnsupportedTensorError, match="empty or freed"):
            views.resolved(t)
    shrunk = torch.arange(100.0).view(10, 10)
    columns = shrunk.t()[:, 1:]
    shrunk.untyped_storage().resize_(200)
    for t in (shrunk, columns):
        with pytest.raises(UnsupportedTensorError, match="beyond its storage of 200 bytes"):
            views.resolved(t)
    assert views.resolved(shrunk[:5]).numel() == 50
