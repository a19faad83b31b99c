"""Section 9 of `cpp/SPEC.md` in NumPy: ULP divergence over whole arrays of bits.

Rounding to a narrower format searches the table of all its numbers, where the native engine
computes: two ways to one answer. Unlike the native engine this one does not undo a program's
FTZ or DAZ for the two float64 figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from repro_audit.engine.tags import NAMES

_Bits = npt.NDArray[Any]
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Format:
    """A number format; `exponent`, `fraction` and `bias` are 0 for integers."""

    bits: str
    kind: Literal["signed", "unsigned", "ieee", "fn", "fnuz", "e8m0"]
    exponent: int = 0
    fraction: int = 0
    bias: int = 0

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.bits).itemsize

    @property
    def sign(self) -> int:
        """The sign bit of a float."""
        return 1 << (8 * self.width - 1)

    @property
    def infinity(self) -> int:
        """The code of infinity in an IEEE format; the largest exponent's first in the others."""
        return ((1 << self.exponent) - 1) << self.fraction


_FORMATS = {
    "bool": Format("<u1", "unsigned"),
    "uint8": Format("<u1", "unsigned"),
    "int8": Format("<u1", "signed"),
    "uint16": Format("<u2", "unsigned"),
    "int16": Format("<u2", "signed"),
    "uint32": Format("<u4", "unsigned"),
    "int32": Format("<u4", "signed"),
    "uint64": Format("<u8", "unsigned"),
    "int64": Format("<u8", "signed"),
    "float16": Format("<u2", "ieee", 5, 10, 15),
    "bfloat16": Format("<u2", "ieee", 8, 7, 127),
    "float32": Format("<u4", "ieee", 8, 23, 127),
    "float64": Format("<u8", "ieee", 11, 52, 1023),
    "float8_e4m3fn": Format("<u1", "fn", 4, 3, 7),
    "float8_e4m3fnuz": Format("<u1", "fnuz", 4, 3, 8),
    "float8_e5m2": Format("<u1", "ieee", 5, 2, 15),
    "float8_e5m2fnuz": Format("<u1", "fnuz", 5, 2, 16),
    "float8_e8m0fnu": Format("<u1", "e8m0"),
}


def format_of(tag: int) -> Format:
    """The format of a dtype's tag; ValueError for complex and packed ones."""
    try:
        return _FORMATS[NAMES[tag]]
    except KeyError:
        raise ValueError("ulp: no dtype with a distance of its own") from None


def _is_nan(bits: _Bits, f: Format) -> npt.NDArray[np.bool_]:
    magnitude = bits & (f.sign - 1)
    nan: npt.NDArray[np.bool_] = np.zeros(bits.shape, np.bool_)
    if f.kind == "ieee":
        nan = magnitude > f.infinity
    elif f.kind == "fn":
        nan = magnitude == f.sign - 1
    elif f.kind == "fnuz":
        nan = bits == f.sign
    elif f.kind == "e8m0":
        nan = bits == 255
    return nan


def _places(bits: _Bits, f: Format) -> _Bits:
    """Section 8: ordered integers, int64 but for uint64 itself."""
    if f.kind == "signed":
        return bits.view(f.bits.replace("u", "i")).astype(np.int64)
    if f.kind in {"unsigned", "e8m0"}:
        return bits.astype(np.uint64 if f.width == 8 else np.int64)
    magnitude = (bits & (f.sign - 1)).astype(np.int64)
    return np.where(bits & f.sign, -magnitude, magnitude)


def values(bits: _Bits, f: Format) -> _F64:
    """What the codes stand for, as float64: exact but for integers beyond 2^53."""
    if f.kind in {"signed", "unsigned"}:
        return _places(bits, f).astype(np.float64)
    if f.kind == "e8m0":
        power = np.ldexp(1.0, bits.astype(np.int64) - 127)
        return np.where(bits == 255, np.nan, power)
    if f.width == 8:
        return bits.view(np.float64)
    magnitude = (bits & (f.sign - 1)).astype(np.int64)
    exponent = magnitude >> f.fraction
    fraction = magnitude & ((1 << f.fraction) - 1)
    significand = np.where(exponent == 0, fraction, fraction | 1 << f.fraction)
    result = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - f.bias - f.fraction)
    if f.kind == "ieee":
        result = np.where(magnitude == f.infinity, np.inf, result)
    result = np.where(_is_nan(bits, f), np.nan, result)
    return np.where(bits & f.sign, -result, result)


def rounded(bits: _Bits, wide: Format, narrow: Format) -> _Bits:
    """The codes of `narrow` nearest to what `bits` stand for in `wide`, ties to even codes."""
    kinds = {"ieee", "fn", "fnuz"}
    if wide.kind not in kinds or narrow.kind not in kinds:
        raise ValueError("ulp: dtypes without a common format")
    x = values(bits, wide)
    nan = np.isnan(x)
    if narrow.width == 4:
        with np.errstate(over="ignore"):
            codes = x.astype(np.float32).view(np.uint32).astype(np.int64) & (narrow.sign - 1)
        largest, quiet, beyond = narrow.infinity, 0x7FC00000, narrow.infinity
    else:
        last = {"ieee": narrow.infinity - 1, "fn": narrow.sign - 2, "fnuz": narrow.sign - 1}
        largest = last[narrow.kind]
        quiet = {
            "ieee": narrow.infinity | 1 << (narrow.fraction - 1),
            "fn": narrow.sign - 1,
            "fnuz": narrow.sign,
        }[narrow.kind]
        beyond = narrow.infinity if narrow.kind == "ieee" else quiet
        table = values(np.arange(largest + 1).astype(narrow.bits), narrow)
        # One number more than there is, a step past the largest: what is nearer to it overflows.
        table = np.append(table, 2 * table[-1] - table[-2])
        magnitude = np.where(nan, 0.0, np.abs(x))
        above = np.clip(np.searchsorted(table, magnitude), 1, largest + 1)
        up = table[above] - magnitude
        down = magnitude - table[above - 1]
        nearer = (up < down) | ((up == down) & (above % 2 == 0))
        codes = np.where(nearer, above, above - 1)
    codes = np.where(codes > largest, beyond, codes)
    codes = np.where(nan, quiet, codes)
    negative = np.signbit(x)
    if narrow.kind == "fnuz":
        negative &= (codes != 0) & (codes != narrow.sign)
    return np.where(negative, codes | narrow.sign, codes).astype(narrow.bits)


def _pair(at: int | None, a: _F64, b: _F64) -> tuple[float, float] | None:
    return None if at is None else (float(a[at]), float(b[at]))


def divergence(a: _Bits, b: _Bits, f: Format) -> dict[str, Any]:
    """Section 9: every figure of the comparison of two flat arrays of codes of one format."""
    differing = a != b
    nan_a, nan_b = _is_nan(a, f), _is_nan(b, f)
    ordered = ~(nan_a | nan_b)
    place_a, place_b = _places(a, f), _places(b, f)
    below, above = ordered & (place_a < place_b), ordered & (place_a > place_b)
    high, low = np.maximum(place_a, place_b), np.minimum(place_a, place_b)
    distance = np.where(ordered, high.astype(np.uint64) - low.astype(np.uint64), np.uint64(0))

    bits = np.zeros(len(distance), np.int64)
    for i in range(64):
        bits[distance >> np.uint64(i) != 0] = i + 1
    unordered = nan_a != nan_b
    histogram = np.bincount(bits[~unordered], minlength=65)

    value_a, value_b = values(a, f), values(b, f)
    max_ulp = int(distance.max(initial=0))
    max_index = int(np.argmax(distance)) if max_ulp else None
    first_index = int(np.argmax(differing)) if differing.any() else None
    is_float = f.kind not in {"signed", "unsigned", "e8m0"}
    zero, infinite = np.zeros(len(a), np.bool_), np.zeros(len(a), np.bool_)
    if is_float:
        zero = ordered & (place_a == 0) & (place_b == 0)
    if f.kind == "ieee":
        infinite = (a & (f.sign - 1) == f.infinity) | (b & (f.sign - 1) == f.infinity)

    moved = ordered & (distance != 0)
    with np.errstate(invalid="ignore", over="ignore"):
        if f.kind in {"signed", "unsigned"}:
            absolute = distance.astype(np.float64)
            scale = np.maximum(_size(place_a), _size(place_b)).astype(np.float64)
        else:
            absolute = np.abs(value_a - value_b)
            scale = np.maximum(np.abs(value_a), np.abs(value_b))
        absolute, scale = absolute[moved], scale[moved]
        relative = np.where(np.isinf(absolute), np.inf, absolute / scale)
    low_half = int((distance & np.uint64(0xFFFFFFFF)).sum(dtype=np.uint64))
    high_half = int((distance >> np.uint64(32)).sum(dtype=np.uint64))
    opposite = ((place_a < 0) & (place_b > 0)) | ((place_a > 0) & (place_b < 0))
    return {
        "numel": len(a),
        "differing": int(differing.sum()),
        "unordered": int(unordered.sum()),
        "nan_payload": int((nan_a & nan_b & differing).sum()),
        "signed_zero": int((zero & differing).sum()),
        "infinity": int((infinite & moved).sum()),
        "sign_flips": int((ordered & opposite).sum()),
        "max_ulp": max_ulp,
        "max_index": max_index,
        "max_values": _pair(max_index, value_a, value_b),
        "first_index": first_index,
        "first_values": _pair(first_index, value_a, value_b),
        "sum_ulp": (high_half << 32) + low_half,
        "histogram": tuple(int(count) for count in histogram),
        "less": int(below.sum()),
        "greater": int(above.sum()),
        "max_absolute": float(absolute.max(initial=0.0)),
        "max_relative": float(relative.max(initial=0.0)),
    }


def _size(places: _Bits) -> npt.NDArray[np.uint64]:
    """|x| of integers, which of the least int64 fits uint64 alone."""
    unsigned = places.astype(np.uint64)
    return np.where(places < 0, np.uint64(0) - unsigned, unsigned)
