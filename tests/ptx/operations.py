"""What PTX's instructions do to numbers: those without memory, control or other threads.

`OPERATIONS` has each by its whole name, so that a modifier that is not known is no instruction
here. Words of the PTX ISA manual are quoted where NumPy does otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .parser import PtxError

Array = npt.NDArray[Any]
TYPES: dict[str, np.dtype[Any]] = {
    **{
        f"{kind}{8 * n}": np.dtype(f"{kind.replace('s', 'i')}{n}")
        for kind in "us"
        for n in (1, 2, 4, 8)
    },
    **{f"b{8 * n}": np.dtype(f"u{n}") for n in (1, 2, 4, 8)},
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "pred": np.dtype(bool),
}
_NAN = np.uint64(0x7FFFFFFFFFFFFFFF).view(np.float64)


@dataclass(frozen=True)
class Operation:
    """A function of arrays of the operands' types; `loose` ones take registers of more bits."""

    result: str
    operands: tuple[str, ...]
    function: Callable[..., Array]
    loose: bool = False


def bits_of(kind: str) -> int:
    return 8 * TYPES[kind].itemsize


def shl(x: Array, n: Array) -> Array:
    """ "Shift amounts greater than the register width N are clamped to N." """
    width = x.dtype.itemsize * 8
    return np.where(n < width, x << np.minimum(n, width - 1).astype(x.dtype), 0)


def shr(x: Array, n: Array) -> Array:
    """As `shl`; "signed shifts fill with the sign bit"."""
    width = x.dtype.itemsize * 8
    moved = x >> np.minimum(n, width - 1).astype(x.dtype)
    return moved if x.dtype.kind == "i" else np.where(n < width, moved, 0)


def _shf(left: bool, wrap: bool) -> Callable[..., Array]:
    """Funnel shifts of `[b, a]`: the upper half of a shift to the left, the lower of the other."""

    def shift(a: Array, b: Array, c: Array) -> Array:
        n = (c & 31 if wrap else np.minimum(c, 32)).astype(np.uint64)
        both = b.astype(np.uint64) << np.uint64(32) | a
        return (both << n) >> np.uint64(32) if left else both >> n

    return shift


def prmt(a: Array, b: Array, c: Array) -> Array:
    """Each nibble of c chooses one of eight bytes; its upper bit replicates that byte's sign."""
    every = b.astype(np.uint64) << np.uint64(32) | a
    result = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint64)
    for i in range(4):
        chosen = (c >> np.uint32(4 * i)).astype(np.uint64)
        byte = every >> (chosen & np.uint64(7)) * np.uint64(8) & np.uint64(255)
        sign = (byte >> np.uint64(7)) * np.uint64(255)
        byte = np.where(chosen & np.uint64(8), sign, byte)
        result |= byte << np.uint64(8 * i)
    return result


def _field(kind: np.dtype[Any], length: Array) -> Array:
    """So many ones from the lowest bit on."""
    one = np.ones(1, kind)
    return shl(np.broadcast_to(one, length.shape), length) - one


def bfe(a: Array, b: Array, c: Array) -> Array:
    """Bits from position b on, c of them, "padded with the sign bit" of what was taken."""
    width, unsigned = a.dtype.itemsize * 8, np.dtype(f"u{a.dtype.itemsize}")
    raw, position, length = np.broadcast_arrays(a.view(unsigned), b & 255, c & 255)
    mask = _field(unsigned, np.minimum(length, width - np.minimum(position, width)))
    taken = shr(raw, position) & mask
    if a.dtype.kind == "u":
        return taken
    end = np.minimum(position + np.maximum(length, 1) - 1, width - 1)
    negative = (length > 0) & ((shr(raw, end) & np.ones(1, unsigned)) != 0)
    return np.where(negative, taken | ~mask, taken)


def bfi(a: Array, b: Array, c: Array, d: Array) -> Array:
    """b, with bits from position c on, d of them, from a."""
    a, b, position, length = np.broadcast_arrays(a, b, c & 255, d & 255)
    mask = shl(_field(a.dtype, length), position)
    return b & ~mask | shl(a, position) & mask


def clz(x: Array) -> Array:
    width = x.dtype.itemsize * 8
    found = np.full(x.shape, width, np.uint32)
    for bit in range(width):
        found[(x >> x.dtype.type(bit)) & x.dtype.type(1) != 0] = width - 1 - bit
    return found


def _div(x: Array, y: Array) -> Array:
    """ "Division by zero yields an unspecified, machine-specific value." """
    if (y == 0).any():
        raise PtxError("a division by zero")
    return x // y


def _rem(x: Array, y: Array) -> Array:
    if (y == 0).any():
        raise PtxError("a remainder of a division by zero")
    return x % y


def _mul_hi(x: Array, y: Array) -> Array:
    half = 8 * x.dtype.itemsize
    wide = np.dtype(f"{x.dtype.kind}{2 * x.dtype.itemsize}")
    return x.astype(wide) * y.astype(wide) >> wide.type(half)


def _mul_hi_u64(x: Array, y: Array) -> Array:
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    cross = (x & low) * (y >> half) + ((x & low) * (y & low) >> half)
    other = (x >> half) * (y & low) + (cross & low)
    return (x >> half) * (y >> half) + (cross >> half) + (other >> half)


def _wide(kind: str) -> Callable[..., Array]:
    wide = TYPES[twice(kind)]
    return lambda x, y, *z: sum(z, x.astype(wide) * y.astype(wide))


def twice(kind: str) -> str:
    """The type of twice as many bits."""
    return f"{kind[0]}{2 * bits_of(kind)}"


def _rounded(operation: Callable[..., Array]) -> Callable[..., Array]:
    """To nearest, as NumPy does; a NaN is one whose bits no code may count on."""

    def apply(*operands: Array) -> Array:
        result = operation(*operands)
        return np.where(np.isnan(result), _NAN, result)

    return apply


def _widened(flush: bool) -> Callable[[Array], Array]:
    """A float32 as a float64; ".ftz: subnormal inputs are flushed to sign-preserving zero"."""

    def widen(x: Array) -> Array:
        bits = x.view(np.uint32)
        if flush:
            bits = np.where(bits & 0x7F800000, bits, bits & 0x80000000).astype(np.uint32)
        wide = bits.view(np.float32).astype(np.float64)
        return np.where(np.isnan(wide), _NAN, wide)

    return widen


_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _ordered(name: str) -> Callable[..., Array]:
    """Comparisons of floats: those that end with u are true where one is NaN, the others false."""
    unordered = len(name) == 3
    comparison = _COMPARISONS[name[:2]]

    def compare(x: Array, y: Array) -> Array:
        nan = np.isnan(x) | np.isnan(y)
        return comparison(x, y) | nan if unordered else comparison(x, y) & ~nan

    return compare


def _integers() -> Iterator[tuple[str, Operation]]:
    for bits in (16, 32, 64):
        for kind in (f"u{bits}", f"s{bits}"):
            pair = (kind, kind)
            yield f"add.{kind}", Operation(kind, pair, np.add)
            yield f"sub.{kind}", Operation(kind, pair, np.subtract)
            yield f"mul.lo.{kind}", Operation(kind, pair, np.multiply)
            yield f"mad.lo.{kind}", Operation(kind, (*pair, kind), lambda x, y, z: x * y + z)
            yield f"min.{kind}", Operation(kind, pair, np.minimum)
            yield f"max.{kind}", Operation(kind, pair, np.maximum)
            if bits < 64:
                wide = twice(kind)
                yield f"mul.wide.{kind}", Operation(wide, pair, _wide(kind))
                yield f"mad.wide.{kind}", Operation(wide, (*pair, wide), _wide(kind))
                yield f"mul.hi.{kind}", Operation(kind, pair, _mul_hi)
            else:
                yield "bfe." + kind, Operation(kind, (kind, "u32", "u32"), bfe)
            yield f"shr.{kind}", Operation(kind, (kind, "u32"), shr)
            for name, comparison in _COMPARISONS.items():
                yield f"setp.{name}.{kind}", Operation("pred", pair, comparison)
        unsigned, signed, plain = f"u{bits}", f"s{bits}", f"b{bits}"
        yield f"neg.{signed}", Operation(signed, (signed,), np.negative)
        yield f"div.{unsigned}", Operation(unsigned, (unsigned, unsigned), _div)
        yield f"rem.{unsigned}", Operation(unsigned, (unsigned, unsigned), _rem)
        yield f"shl.{plain}", Operation(plain, (plain, "u32"), shl)
        yield f"shr.{plain}", Operation(plain, (plain, "u32"), shr)
        for name in ("eq", "ne"):
            yield f"setp.{name}.{plain}", Operation("pred", (plain, plain), _COMPARISONS[name])
    yield "mul.hi.u64", Operation("u64", ("u64", "u64"), _mul_hi_u64)
    for kind in ("u32", "s32"):
        yield "bfe." + kind, Operation(kind, (kind, "u32", "u32"), bfe)
    for kind in ("b32", "b64"):
        yield f"clz.{kind}", Operation("u32", (kind,), clz)
        yield f"bfi.{kind}", Operation(kind, (kind, kind, "u32", "u32"), bfi)
    three = ("b32", "b32", "u32")
    yield "prmt.b32", Operation("b32", three, prmt)
    for mode in ("wrap", "clamp"):
        for side in "lr":
            function = _shf(side == "l", mode == "wrap")
            yield f"shf.{side}.{mode}.b32", Operation("b32", three, function)


def _bits() -> Iterator[tuple[str, Operation]]:
    for kind in ("pred", "b16", "b32", "b64"):
        for name, function in (
            ("and", np.bitwise_and),
            ("or", np.bitwise_or),
            ("xor", np.bitwise_xor),
        ):
            yield f"{name}.{kind}", Operation(kind, (kind, kind), function)
        yield f"not.{kind}", Operation(kind, (kind,), np.invert)
    for kind in TYPES:
        if kind != "pred" and bits_of(kind) > 8:
            yield (
                f"selp.{kind}",
                Operation(kind, (kind, kind, "pred"), lambda x, y, p: np.where(p, x, y)),
            )


def _floats() -> Iterator[tuple[str, Operation]]:
    # Without .rn a product and a sum may be contracted, so that form is none of these.
    for name, function in (
        ("add", np.add),
        ("sub", np.subtract),
        ("mul", np.multiply),
        ("div", np.divide),
    ):
        yield f"{name}.rn.f64", Operation("f64", ("f64", "f64"), _rounded(function))
    yield "neg.f64", Operation("f64", ("f64",), np.negative)
    yield "abs.f64", Operation("f64", ("f64",), np.abs)
    for name in _COMPARISONS:
        for full in (name, f"{name}u"):
            yield f"setp.{full}.f64", Operation("pred", ("f64", "f64"), _ordered(full))


def _conversions() -> Iterator[tuple[str, Operation]]:
    integers = [kind for kind in TYPES if kind[0] in "us"]
    for source in integers:
        for kind in integers:
            function = lambda x, to=TYPES[kind]: x.astype(to)  # noqa: E731
            yield f"cvt.{kind}.{source}", Operation(kind, (source,), function, loose=True)
        name = f"cvt.rn.f64.{source}"
        yield name, Operation("f64", (source,), lambda x: x.astype(np.float64), loose=True)
    yield "cvt.f64.f32", Operation("f64", ("f32",), _widened(False))
    yield "cvt.ftz.f64.f32", Operation("f64", ("f32",), _widened(True))


OPERATIONS = {
    **dict(_integers()),
    **dict(_bits()),
    **dict(_floats()),
    **dict(_conversions()),
}
