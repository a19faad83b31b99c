"""What PTX's instructions do to numbers: those without memory, control or other threads.

`OPERATIONS` has each by its whole name, so that a modifier that is not known is no instruction
here. Words of the PTX ISA manual are quoted where NumPy does otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
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
_NAN32 = np.uint32(0x7FFFFFFF).view(np.float32)


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


def _toward(direction: float, x: Array, rest: Array | float = 0.0) -> Array:
    """The float32 next to x + rest in a direction, or it itself; rest is less than x's last bit."""
    near = x.astype(np.float32)
    with np.errstate(invalid="ignore"):
        over = near.astype(np.float64) - x
    # What is infinite is so, not beyond the largest.
    beyond = np.where(over == 0, -np.sign(rest), np.sign(over))
    beyond = np.where(np.isinf(x), 0, beyond)
    if direction == 0:
        step = (beyond * np.sign(np.where(x == 0, rest, x))) > 0
    else:
        step = beyond * np.sign(direction) < 0
    found = np.where(step, np.nextafter(near, np.float32(direction)), near).astype(np.float32)
    return np.where(np.isnan(x), _NAN32, found)


def _sub_toward(direction: float) -> Callable[..., Array]:
    """A difference of float32 numbers, whose float64 is exact but for a rest, which is known."""

    def subtract(x: Array, y: Array) -> Array:
        a, b = x.astype(np.float64), -y.astype(np.float64)
        total = a + b
        with np.errstate(invalid="ignore"):
            of_b = total - a
            rest = (a - (total - of_b)) + (b - of_b)
        return _toward(direction, total, np.where(np.isfinite(total), rest, 0))

    return subtract


def _mul_f32(x: Array, y: Array) -> Array:
    """Exact in float64."""
    return _toward(0, x.astype(np.float64) * y.astype(np.float64))


def _mul_rz_f64(x: Array, y: Array) -> Array:
    """Rounded toward zero, by way of exact fractions."""
    x, y = np.broadcast_arrays(x, y)
    near = x * y
    found = near.copy()
    for i in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        exact = Fraction(float(x[i])) * Fraction(float(y[i]))
        if not np.isfinite(near[i]) or abs(Fraction(float(near[i]))) > abs(exact):
            found[i] = np.nextafter(near[i], 0)
    return np.where(np.isnan(found), _NAN, found)


def _bfind(x: Array) -> Array:
    """ "Position of the most significant 1-bit", or "0xffffffff if no 1-bit is found"."""
    return np.uint32(8 * x.dtype.itemsize - 1) - clz(x)


def _larger(x: Array, y: Array) -> Array:
    """ "If one of the inputs is NaN, the result is the other"; "if both are", the canonical one."""
    found = np.fmax(x, y)
    return np.where(np.isnan(found), _NAN32 if x.dtype == np.float32 else _NAN, found)


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


def _flush(x: Array) -> Array:
    bits = x.view(np.uint32)
    return np.where(bits & 0x7F800000, bits, bits & 0x80000000).astype(np.uint32).view(np.float32)


def _flushed(name: str) -> Callable[..., Array]:
    """As `_ordered`; ".ftz: subnormal inputs are flushed to sign-preserving zero"."""
    compare = _ordered(name)
    return lambda x, y: compare(_flush(x), _flush(y))


def _quiet(x: Array) -> Array:
    return np.where(np.isnan(x), _NAN32, x)


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
        yield f"bfind.{kind.replace('b', 'u')}", Operation("u32", (kind.replace("b", "u"),), _bfind)
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
    yield "mul.rz.f64", Operation("f64", ("f64", "f64"), _mul_rz_f64)
    # Without .ftz "subnormal numbers are supported".
    for mode, direction in (("rp", np.inf), ("rm", -np.inf)):
        yield f"sub.{mode}.f32", Operation("f32", ("f32", "f32"), _sub_toward(direction))
    yield "mul.rz.f32", Operation("f32", ("f32", "f32"), _mul_f32)
    yield "mul.rn.f32", Operation("f32", ("f32", "f32"), lambda x, y: _quiet(x * y))
    yield "max.f32", Operation("f32", ("f32", "f32"), _larger)
    yield "max.f64", Operation("f64", ("f64", "f64"), _larger)
    yield "abs.f32", Operation("f32", ("f32",), np.abs)
    for name in _COMPARISONS:
        for full in (name, f"{name}u"):
            yield f"setp.{full}.f32", Operation("pred", ("f32", "f32"), _ordered(full))
            yield f"setp.{full}.ftz.f32", Operation("pred", ("f32", "f32"), _flushed(full))
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
    yield "cvt.rz.f32.f64", Operation("f32", ("f64",), lambda x: _toward(0, x))
    yield "cvt.rp.f32.u32", Operation("f32", ("u32",), lambda x: _toward(np.inf, x.astype("f8")))
    yield "cvt.rm.f32.u32", Operation("f32", ("u32",), lambda x: _toward(0, x.astype("f8")))
    half = lambda x: _quiet(x.view(np.float16).astype(np.float32))  # noqa: E731
    yield "cvt.f32.f16", Operation("f32", ("b16",), half)
    yield "cvt.f64.f32", Operation("f64", ("f32",), _widened(False))
    yield "cvt.ftz.f64.f32", Operation("f64", ("f32",), _widened(True))


OPERATIONS = {
    **dict(_integers()),
    **dict(_bits()),
    **dict(_floats()),
    **dict(_conversions()),
}
