"""The `--input` notation: what a bare module class is fed, such as `int64[8,128]<1000`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from repro_audit.errors import UsageError

_FLOATS: Final = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
# Exclusive upper bounds of what the dtype holds.
_INTEGERS: Final = {
    "uint8": 1 << 8,
    "int8": 1 << 7,
    "int16": 1 << 15,
    "int32": 1 << 31,
    "int64": 1 << 63,
}
_ALIASES: Final = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
_NOTATION = re.compile(r"(?:torch\.)?(\w+)\s*\[([\d\s,]*)\]\s*(?:<\s*(\d+))?")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input tensor: dtype name, shape, and for integers the exclusive upper bound."""

    dtype: str
    shape: tuple[int, ...]
    high: int = 0


def parse_input(text: str) -> InputSpec:
    """Read `float32[8,3,32,32]`, `bool[4]`, or an integer dtype with its bound: `int64[8]<1000`.

    Raises UsageError where `text` is none of these.
    """
    match = _NOTATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--input {text!r} is not understood. Write it as 'float32[8,3,32,32]'.")
    dtype = _ALIASES.get(match[1], match[1])
    sizes = [size.strip() for size in match[2].split(",")] if match[2].strip() else []
    if not all(size.isdigit() for size in sizes):
        raise UsageError(
            f"--input {text!r} has a shape that is not understood. "
            "Write it as sizes with commas between them: 'float32[8,3,32,32]'."
        )
    shape = tuple(int(size) for size in sizes)
    bound = match[3]
    if dtype in _INTEGERS:
        return InputSpec(dtype, shape, _high(text, dtype, bound))
    if dtype not in {*_FLOATS, "bool"}:
        known = ", ".join([*_FLOATS, *_INTEGERS, "bool"])
        raise UsageError(f"--input {text!r} names no dtype that can be drawn. There are: {known}.")
    if bound is not None:
        raise UsageError(f"--input {text!r} bounds {dtype}; only integers take a bound. Drop it.")
    return InputSpec(dtype, shape)


def _high(text: str, dtype: str, bound: str | None) -> int:
    if bound is None:
        raise UsageError(
            f"--input {text!r} does not say which integers to draw. "
            f"Add their exclusive upper bound: '{text.strip()}<1000'."
        )
    high = int(bound)
    if not 1 <= high <= _INTEGERS[dtype]:
        raise UsageError(
            f"--input {text!r} has a bound that {dtype} does not hold. "
            f"Give one from 1 to {_INTEGERS[dtype]}."
        )
    return high
