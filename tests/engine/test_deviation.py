"""How far two tensors are apart, against the size of the whole."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from repro_audit.engine import View
from repro_audit.engine.deviation import deviation, relative_rms, values
from repro_audit.engine.views import of as view_of


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def of(a: bytes, b: bytes, dtypes: tuple[str, str] = ("float32", "float32"), numel: int = 0):
    return deviation(a, b, dtypes, numel or len(a) // 4)


def bytes_of(t: torch.Tensor) -> bytes:
    return t.contiguous().view(torch.uint8).numpy().tobytes()


def test_by_hand() -> None:
    found = of(floats(3.0, 4.0), floats(3.0, 4.5))
    assert (found.compared, found.differing, found.unordered) == (2, 1, 0)
    assert found.rms == pytest.approx(0.5 / math.sqrt(9 + 4.5**2))
    assert found.bias == -1.0
    assert found.whole


def test_ulp_near_zero_are_many_and_the_difference_small() -> None:
    found = of(floats(1.0, 1e-30), floats(1.0, 1e-25))
    assert found.max_ulp > 10**8
    assert found.rms < 1e-24


def test_a_sample_is_not_the_whole() -> None:
    assert not of(floats(1.0), floats(2.0), numel=100).whole


def test_equal_and_empty() -> None:
    assert of(floats(1.0, math.nan), floats(1.0, math.nan)).rms == 0.0
    empty = of(b"", b"")
    assert (empty.compared, empty.rms, empty.whole) == (0, 0.0, True)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_size(odd: float) -> None:
    found = of(floats(1.0, odd, 1.0), floats(1.0, 1.0, 1.5))
    assert found.rms == pytest.approx(0.5 / math.sqrt(1 + 1.5**2))
    assert found.unordered == math.isnan(odd)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30, 3e38])
def test_at_the_ends_of_the_range(scale: float) -> None:
    found = of(floats(scale, scale / 2), floats(scale, scale / 4))
    assert found.rms == pytest.approx(0.25 / math.sqrt(1.25), rel=1e-3)


def test_of_two_dtypes_the_narrower_counts_and_the_difference_is_exact() -> None:
    x = torch.tensor([1.0, 1.001, 3.14159])
    y = x.bfloat16()
    found = of(bytes_of(x), bytes_of(y), ("float32", "bfloat16"))
    assert (found.differing, found.max_ulp) == (0, 0)
    wide = (x.double() - y.double()).norm() / max(x.double().norm(), y.double().norm())
    assert found.rms == pytest.approx(wide.item(), rel=1e-12)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
    ],
)
def test_numbers_are_exact(dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 3, 41).to(dtype)
    name = str(dtype).removeprefix("torch.")
    assert values(bytes_of(x), name).tolist() == x.double().tolist()


def test_complex_numbers_are_two() -> None:
    x = torch.tensor([1 + 2j, -3j])
    assert values(bytes_of(x), "complex64").tolist() == [1.0, 2.0, 0.0, -3.0]


def test_integers_by_their_difference() -> None:
    found = of(bytes_of(torch.tensor([1, 2])), bytes_of(torch.tensor([1, 7])), ("int64", "int64"))
    assert (found.differing, found.max_ulp) == (1, 5)


@pytest.mark.parametrize(
    ("dtypes", "other"),
    [
        (("float32", "int32"), floats(1.0)),
        (("python", "python"), floats(1.0)),
        (("float32", "float32"), floats(1.0, 2.0)),
    ],
)
def test_no_distance(dtypes: tuple[str, str], other: bytes) -> None:
    assert of(floats(1.0), other, dtypes) is None


def views(a: torch.Tensor, b: torch.Tensor) -> tuple[View, View]:
    return view_of(a), view_of(b)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "bfloat16", "float16", "complex64", "int32"]
)
@pytest.mark.parametrize("numel", [0, 1, 1000, 200_000])
def test_of_whole_tensors_as_of_streams(dtype: str, numel: int) -> None:
    generator = torch.Generator().manual_seed(numel)
    kind = getattr(torch, dtype)
    a = (torch.randn(numel, generator=generator) * 100).to(kind)
    b = a.to(torch.complex128) * 1.01
    b = (
        b.to(kind)
        if kind.is_complex
        else torch.tensor(b.real.tolist(), dtype=torch.float64).to(kind)
    )
    expected = deviation(bytes_of(a), bytes_of(b), (dtype, dtype), numel)
    assert relative_rms(*views(a, b)) == pytest.approx(expected.rms, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1.7e308])
def test_of_whole_tensors_at_the_ends_of_the_range(scale: float) -> None:
    a = torch.tensor([scale, scale / 2], dtype=torch.float64)
    b = torch.tensor([scale, scale / 4], dtype=torch.float64)
    assert relative_rms(*views(a, b)) == pytest.approx(0.25 / math.sqrt(1.25), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_whole_tensors_what_is_finite_on_both_sides(dtype: torch.dtype) -> None:
    a = torch.tensor([1.0, math.nan, 1.0, math.inf], dtype=dtype)
    b = torch.tensor([1.0, 1.0, 1.5, math.inf], dtype=dtype)
    assert relative_rms(*views(a, b)) == pytest.approx(0.5 / math.sqrt(1 + 1.5**2))


def test_of_whole_tensors_strides_and_other_dtypes() -> None:
    a = torch.arange(1.0, 13.0).reshape(3, 4)
    b = a.t().contiguous().t().double() * 1.5
    assert relative_rms(*views(a, b)) == pytest.approx(1 / 3)
    assert relative_rms(*views(a * 0, b * 0)) == 0.0
    eighths = a.to(torch.float8_e4m3fn)
    assert relative_rms(*views(eighths, eighths)) == 0.0
