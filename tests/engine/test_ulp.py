"""ULP divergence: every format, every figure, every edge case, on every engine."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_audit import _engine
from repro_audit.engine import TAGS, by_stream, choice, compare, compare_channels, reference_ulp
from repro_audit.engine.tags import FLOATS
from repro_audit.errors import UnsupportedTensorError

INF, NAN = math.inf, math.nan
BYTE_FORMATS = [name for name in TAGS if "float8" in name]
QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def both(a: np.ndarray, b: np.ndarray, tag_a: int, tag_b: int = 0) -> None:
    """The engine in use says of two flat arrays of codes what the reference says."""
    steps = (1,)
    args = (a.ctypes.data, steps, b.ctypes.data, steps, a.shape, tag_a, tag_b)
    assert repr(choice.engine().ulp(*args)) == repr(
        by_stream.of_reference().ulp(*args)
    )  # nan equals nan so


def f32(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def codes(values: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    width = torch.empty(0, dtype=dtype).itemsize
    return torch.from_numpy(np.array(values, f"<u{width}")).view(dtype)


@pytest.mark.parametrize("name", [*BYTE_FORMATS, "int8", "uint8"])
def test_all_pairs_of_8_bit_codes(each_engine: str, name: str) -> None:
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for x, y in zip(a, b, strict=True):  # a row at a time, so that no figure hides behind another
        both(x.copy(), y.copy(), TAGS[name])
    both(a.ravel(), b.ravel(), TAGS[name])


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int16", "uint16"])
def test_all_16_bit_codes(each_engine: str, name: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    for other in (every + np.uint16(1), every ^ np.uint16(0x8000), every[::-1].copy(), every):
        both(every, other, TAGS[name])


@pytest.mark.parametrize(
    "name", ["float32", "float64", "int32", "uint32", "int64", "uint64", "bool"]
)
def test_random_codes(each_engine: str, name: str) -> None:
    width = reference_ulp.format_of(TAGS[name]).width
    rng = np.random.default_rng(3)
    a = rng.integers(0, 256, 4096 * width, np.uint8).view(f"u{width}")
    if name == "bool":
        a = a % 2
    edges = np.array([0, 1, 2, -1, -2, 1 << 63, (1 << 63) - 1], dtype=object)
    a[:7] = [int(edge) % (1 << 8 * width) for edge in edges]
    b = a.copy()
    b[100:200] = a[200:300]
    b[300:400] += a.dtype.type(1)
    b[:7] = a[:7][::-1]
    both(a, b, TAGS[name])
    both(a, rng.permutation(a), TAGS[name])


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_many_pairs(each_engine: str, name: str, few: bool) -> None:
    """Vectors, their ends, and sums carried over many of them; special pairs among plain ones."""
    f = reference_ulp.format_of(TAGS[name])
    rng = np.random.default_rng(4)
    numel = 70_003
    for step in (3, 1 << (f.fraction - 1), f.infinity):
        a = rng.integers(0, f.infinity, numel).astype(f.bits)
        a |= (rng.integers(0, 2, numel) * f.sign).astype(f.bits)
        moved = np.minimum((a & (f.sign - 1)) + rng.integers(0, step, numel), f.infinity - 1)
        b = (moved | (a & f.sign)).astype(f.bits)
        odd = np.array([0, f.sign, f.infinity, f.infinity + 1, f.sign + f.infinity, 1], f.bits)
        for side in (a, b):
            side[rng.integers(0, numel, 40)] = rng.choice(odd, 40)
        if few:
            kept = rng.random(numel) < 0.999
            b[kept] = a[kept]
        for start in (0, 1, 7):
            both(a[start:], b[start:], TAGS[name])


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [(w, n) for w, n in itertools.combinations(FLOATS, 2)],
)
def test_rounding_to_the_narrower(each_engine: str, wide: str, narrow: str) -> None:
    f, g = reference_ulp.format_of(TAGS[wide]), reference_ulp.format_of(TAGS[narrow])
    rng = np.random.default_rng(5)
    count = 1 << min(16, 8 * f.width)
    a = np.arange(count).astype(f.bits)
    if f.width > 2:
        # All narrow numbers, halves between them and their neighbours, and noise.
        steps = np.arange(1 << min(16, 8 * g.width)).astype(g.bits)
        exact = reference_ulp.values(steps, g)
        exact = exact[np.isfinite(exact)]
        middle = (exact[1:] + exact[:-1]) / 2
        dtype = np.float64 if f.width == 8 else np.float32
        with np.errstate(over="ignore"):
            points = np.concatenate([exact, middle]).astype(dtype)
            near = [points, np.nextafter(points, dtype(INF)), np.nextafter(points, dtype(-INF))]
        noise = rng.integers(0, 256, 4096 * f.width, np.uint8)
        a = np.concatenate([x.view(f.bits) for x in (*near, noise.view(dtype))])
    b = rng.integers(0, 256, len(a) * g.width, np.uint8).view(g.bits)
    both(a, b, TAGS[wide], TAGS[narrow])
    # What torch itself rounds to is equal, within the range: beyond it, it may saturate. It rounds
    # float64 twice, by way of float32, and is no yardstick there.
    if wide != "float64" and not narrow.endswith("fnuz"):
        t, to = torch.from_numpy(a.copy()).view(getattr(torch, wide)), getattr(torch, narrow)
        t = t[t.double().abs() <= torch.finfo(to).max]
        assert compare(t, t.to(to)).identical


def test_the_sides_of_different_dtypes(each_engine: str) -> None:
    a, b = f32(1.0, 2.0, 5.0), torch.tensor([1.0, 4.0, 4.0], dtype=torch.bfloat16)
    d, e = compare(a, b), compare(b, a)
    assert (d.less, d.greater, d.max_values) == (1, 1, (2.0, 4.0))
    assert (e.less, e.greater, e.max_values) == (1, 1, (4.0, 2.0))
    assert d.dtype == e.dtype == "bfloat16"


def test_dtypes_without_a_common_distance(each_engine: str) -> None:
    for other in (torch.int32, torch.complex64, torch.float8_e8m0fnu):
        with pytest.raises(UnsupportedTensorError, match="no common distance"):
            compare(f32(1.0), torch.ones(1).to(other))
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(UnsupportedTensorError, match="float4_e2m1fn_x2"):
        compare(packed, packed)
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        compare(torch.ones(2), torch.ones(3))
    with pytest.raises(TypeError, match="not float"):
        compare(1.0, torch.ones(1))


def test_identical(each_engine: str) -> None:
    x = torch.randn(100, 7)
    d = compare(x, x.clone())
    assert d.identical
    assert (d.numel, d.shape, d.dtype) == (700, (100, 7), "float32")
    assert (d.max_ulp, d.max_index, d.first_index, d.sum_ulp, d.mean_ulp) == (0, None, None, 0, 0.0)
    assert d.histogram == (700, *[0] * 64)


@QUICK
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), at=st.integers(0, 99))
def test_nextafter_is_one_ulp(each_engine: str, value: float, at: int) -> None:
    a = np.full(100, value, np.float32)
    b = a.copy()
    with np.errstate(over="ignore", under="ignore"):
        b[at] = np.nextafter(b[at], np.float32(INF))
    d = compare(a, b)
    assert (d.differing, d.max_ulp, d.sum_ulp, d.less, d.greater) == (1, 1, 1, 1, 0)
    assert d.max_index == d.first_index == (at,)
    assert d.max_values == (float(a[at]), float(b[at]))
    assert d.histogram[:2] == (99, 1)


def test_empty_and_zero_dim(each_engine: str) -> None:
    d = compare(torch.empty(0, 3), torch.empty(0, 3))
    assert (d.numel, d.differing, d.max_index, sum(d.histogram)) == (0, 0, None, 0)
    d = compare(torch.tensor(1.0), torch.tensor(2.0))
    assert (d.numel, d.max_ulp, d.max_index, d.first_index) == (1, 1 << 23, (), ())


def test_nans(each_engine: str) -> None:
    d = compare(torch.full((300,), NAN), torch.full((300,), NAN))
    assert d.identical
    assert d.histogram[0] == 300
    d = compare(torch.full((300,), NAN), torch.zeros(300))
    assert (d.unordered, d.differing, d.max_ulp, d.mean_ulp) == (300, 300, 0, 0.0)
    assert sum(d.histogram) == 0
    d = compare(codes([0x7FC00000, 0x7FC00001]), codes([0x7FC00000, 0xFFC00000]))
    assert (d.nan_payload, d.differing, d.unordered, d.histogram[0]) == (1, 1, 0, 2)
    d = compare(f32(NAN, 1.0, INF), f32(NAN, NAN, NAN))
    assert (d.unordered, d.infinity, d.less, d.greater) == (2, 0, 0, 0)
    assert d.first_index == (1,)
    assert d.first_values is not None
    assert d.first_values[0] == 1.0
    assert math.isnan(d.first_values[1])


def test_infinities(each_engine: str) -> None:
    largest = torch.finfo(torch.float32).max
    d = compare(f32(INF), f32(largest))
    assert (d.max_ulp, d.infinity, d.max_absolute, d.max_relative) == (1, 1, INF, INF)
    d = compare(f32(INF, -INF), f32(INF, -INF))
    assert (d.identical, d.infinity) == (True, 0)
    d = compare(f32(INF), f32(-INF))
    assert (d.max_ulp, d.infinity, d.sign_flips) == (2 * 0x7F800000, 1, 1)
    assert (d.max_absolute, d.max_relative) == (INF, INF)


def test_zeros_of_both_signs(each_engine: str) -> None:
    d = compare(f32(0.0, -0.0, 1.0), f32(-0.0, 0.0, 1.0))
    assert (d.differing, d.signed_zero, d.max_ulp, d.less, d.greater) == (2, 2, 0, 0, 0)
    assert (d.max_index, d.first_index, d.histogram[0]) == (None, (0,), 3)
    d = compare(f32(0.0), codes([0x80000001]))
    assert (d.max_ulp, d.sign_flips, d.greater) == (1, 0, 1)
    d = compare(codes([1]), codes([0x80000001]))
    assert (d.max_ulp, d.sign_flips) == (2, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_first_of_equal_distances_beside_infinity(each_engine: str, dtype: torch.dtype) -> None:
    top = torch.tensor(torch.finfo(dtype).max, dtype=dtype)
    below = (top.view(torch.int32 if dtype is torch.float32 else torch.int16) - 1).view(dtype)
    infinity = torch.tensor(torch.inf, dtype=dtype)
    a = torch.stack([infinity, top, top, infinity])
    b = torch.stack([infinity, below, top, top])
    a[3], b[3] = infinity, top
    found = compare(a, b)
    assert (found.max_ulp, found.max_index, found.max_values) == (
        1,
        (1,),
        (float(top), float(below)),
    )


@pytest.fixture
def flushing() -> Iterator[None]:
    """FTZ and DAZ on, as a host program may have them."""
    assert torch.set_flush_denormal(True), "a CPU with FTZ and DAZ is needed"
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("name", _engine.engines())
@pytest.mark.usefixtures("flushing")
def test_denormals_are_not_flushed(name: str) -> None:
    choice.select(name)
    try:
        a, b = codes([1, 2, 0x80000003]), codes([3, 2, 1])
        d = compare(a, b)
        assert (d.max_ulp, d.max_index, d.sum_ulp) == (4, (2,), 6)
        assert (d.max_absolute, d.max_relative) == (4 * 2.0**-149, 4 / 3)
        assert d.max_values == (-3 * 2.0**-149, 2.0**-149)
        wide = torch.float64
        d = compare(codes([1], wide), codes([3], wide))
        # In integers: the host itself flushes here whatever it computes with such a number.
        bits = struct.unpack("<Q", struct.pack("<d", d.max_absolute))[0]
        assert (d.max_ulp, bits, d.max_relative) == (2, 2, 2 / 3)
        # A host that flushes is left as it was.
        assert float(torch.tensor([1e-40]) * 1.0) == 0.0
        many = 1 << 21  # enough for several threads
        d = compare(codes([1]).repeat(many), codes([3]).repeat(many))
        assert (d.max_absolute, d.max_relative) == (2 * 2.0**-149, 2 / 3)
        d = compare(torch.tensor([2.0**-130], dtype=wide), codes([1 << 19]))
        assert d.identical
    finally:
        choice.select(None)


def test_strides(each_engine: str) -> None:
    base = torch.randn(6, 8, 5)
    other = base.clone()
    other[2, 3, 4] += 1
    for view in (
        lambda x: x.transpose(0, 2),
        lambda x: x[::2, 1:, :],
        lambda x: x.permute(1, 2, 0)[..., None].expand(-1, -1, -1, 3),
    ):
        a, b = view(base), view(other)
        assert compare(a, b) == compare(a.contiguous(), b.contiguous())
        assert compare(a, b.contiguous()) == compare(a.contiguous(), b)
    a, b = base.numpy()[::-1, :, ::-1], other.numpy()[::-1, :, ::-1]
    assert compare(a, b) == compare(a.copy(), b.copy())
    assert compare(a, b).max_index == (3, 3, 0)
    assert compare(f32(1.0).expand(5), f32(1.0, 1.0, 1.0, 2.0, 1.0)).first_index == (3,)


def test_misaligned_storage(each_engine: str) -> None:
    raw = torch.zeros(4 * 100 + 1, dtype=torch.uint8).numpy()
    a = np.frombuffer(raw.data, np.float32, 100, 1)
    b = a.copy()
    b[70] = 1.0
    assert compare(a, b).first_index == (70,)


def test_complex_numbers_are_two_parts(each_engine: str) -> None:
    a = torch.tensor([[1 + 1j, 2 + 2j]], dtype=torch.complex64)
    b = torch.tensor([[1 + 1j, 2 + 3j]], dtype=torch.complex64)
    d = compare(a, b)
    assert (d.numel, d.shape, d.dtype, d.differing) == (4, (1, 2), "complex64", 1)
    assert (d.first_index, d.max_values) == ((0, 1, 1), (2.0, 3.0))
    assert compare(a.conj(), b.conj()).first_values == (-2.0, -3.0)
    assert compare(a.conj().imag, b.conj().imag).first_values == (-2.0, -3.0)
    assert compare(a.t(), b.t()).first_index == (1, 0, 1)
    d = compare(a, b.to(torch.complex128))
    assert (d.dtype, d.max_values) == ("complex64", (2.0, 3.0))


def test_integers_and_bools(each_engine: str) -> None:
    a = torch.tensor([-(2**63), 5, -3])
    d = compare(a, torch.tensor([2**63 - 1, 5, 4]))
    assert (d.max_ulp, d.sum_ulp, d.sign_flips) == (2**64 - 1, 2**64 + 6, 2)
    assert d.max_absolute == 2.0**64
    assert d.max_relative == 2.0
    d = compare(torch.tensor([True, False, True]), torch.tensor([True, True, False]))
    assert (d.max_ulp, d.differing, d.less, d.greater) == (1, 2, 1, 1)


def test_the_sum_has_more_than_64_bits(each_engine: str) -> None:
    a, b = torch.full((1000,), -INF, dtype=torch.float64), torch.full((1000,), INF).double()
    d = compare(a, b)
    assert d.sum_ulp == 1000 * 2 * 0x7FF0000000000000
    assert d.histogram[64] == 1000
    assert d.percentile(50) == (1 << 63, (1 << 64) - 1)


@pytest.mark.parametrize("name", _engine.engines())
def test_threads_change_nothing(name: str) -> None:
    count = (9 << 20) // 4
    a = torch.ones(count)
    b = a.clone()
    b[torch.arange(5, count, 1000)] = 1.5
    b[count // 2 :: 7777] = NAN
    args = (a.data_ptr(), (1,), b.data_ptr(), (1,), (count,), 12, 12)
    choice.select(name)
    try:
        one = _engine.ulp(*args, 1)
        assert one["max_index"] == one["first_index"] == 5
        assert one == by_stream.of_reference().ulp(*args)
        for threads in (0, 2, 3, 8):
            assert _engine.ulp(*args, threads) == one
    finally:
        choice.select(None)


def test_more_than_2_to_the_32_elements() -> None:
    """Repeated by a stride of 0, so that it takes no memory; indices do not wrap."""
    rows, columns = 70_000, 65_536
    a = np.zeros(columns, np.uint8)
    b = a.copy()
    b[-1] = 3
    d = compare(np.broadcast_to(a, (rows, columns))[:2], np.broadcast_to(b, (rows, columns))[:2])
    assert (d.differing, d.first_index) == (2, (0, columns - 1))
    tall = _engine.ulp(a.ctypes.data, (0, 1), b.ctypes.data, (0, 1), (rows, columns), 2)
    assert (tall["numel"], tall["differing"], tall["sum_ulp"]) == (rows * columns, rows, 3 * rows)
    assert (tall["max_index"], tall["histogram"][0]) == (columns - 1, rows * (columns - 1))
    last = np.zeros(1, np.uint8)
    far = _engine.lanes(last.ctypes.data, 1, rows * columns)
    assert far == (0, 0)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_channels(each_engine: str, dim: int) -> None:
    g = torch.Generator().manual_seed(5)
    a = torch.randn(7, 33, 20, generator=g)
    b = a.clone()
    b[3, 5, 7] = math.nextafter(float(b[3, 5, 7]), 100) + 1
    b.view(torch.int32)[:, 30:, 2::9] += 3
    b[6, 0, 0] = NAN
    for x, y in ((a, b), (a.transpose(0, 2), b.transpose(0, 2)), (a, b.bfloat16())):
        found = compare_channels(x, y, dim)
        assert len(found) == x.shape[dim]
        for c, channel in enumerate(found):
            whole = compare(x.select(dim, c), y.select(dim, c))
            assert channel.differing == whole.differing
            assert channel.unordered == whole.unordered
            assert channel.max_ulp == whole.max_ulp


def test_channels_of_what_has_none(each_engine: str) -> None:
    assert compare_channels(f32(), f32()) == []
    assert compare_channels(torch.ones(3, 0), torch.ones(3, 0), 0)[2].differing == 0
    z = torch.tensor([1 + 2j, 3], dtype=torch.complex64)
    assert [c.differing for c in compare_channels(z, z.conj())] == [1, 1]
    with pytest.raises(IndexError, match="no dimension 1"):
        compare_channels(f32(1), f32(1), 1)
    with pytest.raises(IndexError, match="no dimension"):
        compare_channels(torch.tensor(1.0), torch.tensor(1.0))


def test_an_index_beyond_32_bits() -> None:
    """Zeros that the system never had to make: their pages are read, not written."""
    numel = (1 << 32) + 8
    a, b = np.zeros(numel, np.uint8), np.zeros(numel, np.uint8)
    b[-3] = 9
    found = compare(a, b)
    assert (found.numel, found.differing, found.max_ulp) == (numel, 1, 9)
    assert found.first_index == found.max_index == (numel - 3,)
    assert found.histogram[0] == numel - 1
    assert sum(channel.differing for channel in compare_channels(a[None], b[None], 0)) == 1
