"""The kernels by way of CuPy: what is launched, on what, and that NVRTC compiles all of it.

Launches are looked at, not made. Compiling needs CuPy and NVRTC, and no device:
`REPRO_AUDIT_REQUIRE=cupy` turns its skip into a failure.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from repro_audit import _engine
from repro_audit.engine import TAGS, cupy_kernels, reference
from repro_audit.engine.tags import ITEMSIZES, PARTS

_QUEUE = (0, 77)


class Launches(list[tuple[Any, ...]]):
    """What would have been launched."""

    def __call__(self, name: str, grid: int, threads: str, arguments: Any, *queue: int) -> None:
        assert queue == _QUEUE
        assert grid >= 1
        assert threads in _engine.LAUNCH
        self.append((name, *arguments))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches()
    monkeypatch.setattr(cupy_kernels, "_launch", found)
    monkeypatch.setattr(cupy_kernels, "_multiprocessors", lambda device: 4)
    return found


def read(source: str, held: bytes, nbytes: int) -> bytes:
    """The stream that a kernel would read through a source."""
    kind, width = source.removesuffix(">").split("<")
    if kind == "Contiguous":
        origin, begin, end = np.frombuffer(held, np.uint64).tolist()
        assert origin % int(width) == 0
        return ctypes.string_at(origin + begin, end - begin)
    address, count, rank = np.frombuffer(held, np.uint64, 3).tolist()
    axis = np.dtype([("size", "u8"), ("step", "i8"), ("magic", "u4"), ("shift", "u4")])
    axes = np.frombuffer(held, axis, 65, 24)[: rank & 0xFFFFFFFF]
    assert math.prod(axes["size"].tolist()) == count
    assert count * int(width) == nbytes
    places = [0]
    for size, step in zip(axes["size"].tolist(), axes["step"].tolist(), strict=True):
        places = [at + i * step for at in places for i in range(size)]
    assert all((address + at) % int(width) == 0 for at in places)
    return b"".join(ctypes.string_at(address + at, int(width)) for at in places)


def source_of(name: str) -> str:
    """The last template argument of a kernel's name."""
    return name.removesuffix(">").rpartition("repro_audit::cuda::")[2]


def tensors() -> list[torch.Tensor]:
    base = torch.arange(2 * 6 * 40, dtype=torch.int32).view(2, 6, 40)
    return [
        base,
        base.transpose(0, 2),
        base[:, ::3, 1::2],
        base[0, 0].expand(3, 40),
        base[:, :, :8],
        base.view(torch.uint8).reshape(-1)[3:],
        base.view(torch.int16)[..., 1:],
        base.view(torch.int64).transpose(1, 2),
        torch.randn(4, 3, dtype=torch.complex128).t(),
        base[0, 0, 0],
    ]


def test_digests(launches: Launches) -> None:
    for t in tensors():
        data = t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place = (t.data_ptr(), tuple(t.shape), t.stride(), t.itemsize)
        cupy_kernels.add_strided(*place, 5, 99, *_QUEUE)
        name, held, begin, end, key, out = launches.pop()
        assert (begin, end, key, out) == (0, len(data), 5, 99)
        assert read(source_of(name), held, len(data)) == data
        cupy_kernels.add_multiset(*place, 5, 99, *_QUEUE)
        name, held, nbytes, key, out = launches.pop()
        assert name.startswith(f"repro_audit::cuda::multiset_kernel<{t.itemsize}, ")
        elements = read(source_of(name), held, nbytes)
        assert reference.multiset_lanes(elements, t.itemsize, 5) == (
            reference.multiset_lanes(data, t.itemsize, 5)
        )
        cupy_kernels.sample(*place, 1, 99, *_QUEUE)
        name, held, *rest = launches.pop()
        assert rest == [1, 99]
        assert name == f"repro_audit::cuda::sample_kernel<{t.itemsize}>"
        assert read(f"Pieces<{t.itemsize}>", held, len(data)) == data
    for offset in (0, 3, 1024):
        t = tensors()[0]
        cupy_kernels.add_range(t.data_ptr() + 4, 100, offset, 0, 99, *_QUEUE)
        name, held, begin, end, *_ = launches.pop()
        assert (begin, end) == (offset, offset + 100)
        assert read(source_of(name), held, 100) == ctypes.string_at(t.data_ptr() + 4, 100)


def test_nothing_is_launched_for_nothing(launches: Launches) -> None:
    place = (0, (0, 3), (3, 1), 4)
    cupy_kernels.add_strided(*place, 0, 99, *_QUEUE)
    cupy_kernels.add_multiset(*place, 0, 99, *_QUEUE)
    cupy_kernels.sample(*place, 0, 99, *_QUEUE)
    cupy_kernels.add_range(0, 0, 0, 0, 99, *_QUEUE)
    cupy_kernels.add_table([(0, 0), (0, 0)], 0, 99, *_QUEUE)
    assert launches == []


def test_tables(launches: Launches) -> None:
    places = [(1000 + i, 5000 * (i % 5)) for i in range(1500)]
    cupy_kernels.add_table(places, 7, 4096, *_QUEUE)
    cupy_kernels.add_table(places[:10], 7, 4096, *_QUEUE)
    found = []
    for (name, held, count, units, key, out), rows in zip(launches, (1360, 1360, 64), strict=True):
        assert name == f"repro_audit::cuda::table_kernel<{rows if count > 64 else 64}>"
        assert len(held) == 24 * (rows if count > 64 else 64)
        table = np.frombuffer(held, np.uint64).reshape(-1, 3)[:count].tolist()
        assert key == 7
        at = 0
        for address, nbytes, first in table:
            assert first == at
            at += -(-nbytes // 8192)
            found.append((address, nbytes))
        assert at == units
        assert out == 4096 + 16 * ((len(found) - count) % 1500)
    assert found == places + places[:10]


def test_plain_tensors(launches: Launches) -> None:
    t = torch.randn(6, 5)
    z = torch.randn(3, dtype=torch.complex64)
    meta = torch.empty(3, device="meta")
    given = [t, t.t(), z.conj(), torch.empty(0), meta]
    found = cupy_kernels.add_tensors(given, 160, *_QUEUE)
    assert found == [(120, 12), (120, 12), None, (0, 12), None]
    (strided, *_, out), (_, held, count, *_, whole) = launches
    assert "stream_kernel<repro_audit::cuda::Pieces" in strided
    assert (out, whole, count) == (176, 160, 5)
    assert np.frombuffer(held, np.uint64)[:2].tolist() == [t.data_ptr(), 120]
    launches.clear()
    assert cupy_kernels.add_tensor(t, 160, *_QUEUE) == (120, 12)
    assert "stream_kernel<repro_audit::cuda::Contiguous" in launches[0][0]


def test_comparisons(launches: Launches) -> None:
    records = cupy_kernels.compare_records(10**9, 0)
    assert records == 4 * _engine.LAUNCH["threadwise"]
    cupy_kernels.compare(TAGS["float32"], 4096, 8196, 50, 99, *_QUEUE)
    name, a, b, numel, out = launches.pop()
    assert "Contiguous<4>" in name
    assert np.frombuffer(a, np.uint64).tolist() == [4096, 0, 200]
    assert np.frombuffer(b, np.uint64).tolist() == [8196, 0, 200]
    assert (numel, out) == (50, 99)
    with pytest.raises(ValueError, match="no dtype with a distance"):
        cupy_kernels.compare(TAGS["complex64"], 4096, 8192, 50, 99, *_QUEUE)
    with pytest.raises(ValueError, match="unaligned"):
        cupy_kernels.compare(TAGS["float32"], 4097, 8192, 50, 99, *_QUEUE)


def test_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By CuPy's rules: an array that is passed by value has one element."""
    launched: list[Any] = []

    class Function:
        kernel = "loaded"

        def __call__(self, grid: Any, block: Any, args: Any, *, stream: Any) -> None:
            assert all(arg.size == 1 for arg in args)
            launched.append((grid, block, [arg.tobytes() for arg in args], stream.ptr))

    class Module:
        def __init__(self, **given: Any) -> None:
            assert given["name_expressions"] == ("a kernel",)

        def get_function(self, name: str) -> Function:
            return Function()

    @contextmanager
    def device(index: int) -> Iterator[None]:
        assert index == 0
        yield

    compiler = SimpleNamespace(CompileException=RuntimeError)
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=device, compiler=compiler), RawModule=Module)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    cupy_kernels._compiled.cache_clear()
    cupy_kernels._launch("a kernel", 3, "threads", (b"a structure", 5), *_QUEUE)
    cupy_kernels._compiled.cache_clear()
    five = (5).to_bytes(8, "little")
    assert launched == [((3,), (_engine.LAUNCH["threads"],), [b"a structure", five], 77)]


def test_one_compilation_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVRTC does not take two threads at its first."""
    met = Barrier(2, timeout=0.3)

    def module(**given: Any) -> Any:
        with suppress(BrokenBarrierError):
            met.wait()
            pytest.fail("two threads compile at once")
        return SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel="loaded"))

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawModule=module))
    cupy_kernels._compiled.cache_clear()
    with ThreadPoolExecutor(2) as pool:
        assert len([*pool.map(cupy_kernels._compiled, ("a kernel", "another"), (0, 0))]) == 2
    cupy_kernels._compiled.cache_clear()


def every_kernel() -> list[str]:
    """All that can be asked for."""
    widths = (1, 2, 4, 8, 16)
    pieces = [f"Pieces<{width}>" for width in widths]
    ranges = [f"Contiguous<{width}>" for width in (1, 2, 4, 16)]
    names = [cupy_kernels.stream_kernel(source) for source in (*pieces, *ranges)]
    names += [cupy_kernels.table_kernel(_engine.LAUNCH[rows]) for rows in ("few_rows", "most_rows")]
    names += [cupy_kernels.sample_kernel(width) for width in widths]
    for width in widths:
        sources = {f"Pieces<{width}>", "Pieces<1>", "Contiguous<16>"}
        sources |= {f"Contiguous<{width}>", "Contiguous<1>"}
        names += [cupy_kernels.multiset_kernel(width, source) for source in sorted(sources)]
    for dtype in TAGS:
        if dtype not in PARTS and dtype != "float4_e2m1fn_x2":
            for width in (ITEMSIZES[dtype], 16):
                names.append(cupy_kernels.ulp_kernel(dtype, f"Contiguous<{width}>"))
    return names


def test_nvrtc_compiles_every_kernel() -> None:
    if find_spec("cupy") is None:
        assert os.environ.get("REPRO_AUDIT_REQUIRE") != "cupy", "CuPy is not installed"
        pytest.skip("CuPy is not installed")
    from cupy.cuda import compiler

    def compiled(names: list[str]) -> tuple[int, list[str]]:
        program = compiler._NVRTCProgram(
            cupy_kernels.SOURCE, "kernels.cu", (), (), tuple(names), "cubin"
        )
        cubin, mangled = program.compile((*cupy_kernels.options(), "-arch=sm_90"))
        return len(cubin), [*mangled]

    names = every_kernel()
    # What NVRTC loads at its first use, it loads in one thread alone.
    compiled(names[:1])
    with ThreadPoolExecutor(2) as pool:
        parts = [*pool.map(compiled, (names[::2], names[1::2]))]
    assert all(size > 50_000 for size, _ in parts)
    assert sorted(name for _, mangled in parts for name in mangled) == sorted(names)
