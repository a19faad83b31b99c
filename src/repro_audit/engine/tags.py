"""The dtype tags of the digest, `cpp/SPEC.md` section 6: canonical name to number and width."""

from __future__ import annotations

from typing import Final

TAGS: Final[dict[str, int]] = {
    "bool": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "uint32": 6,
    "int32": 7,
    "uint64": 8,
    "int64": 9,
    "float16": 10,
    "bfloat16": 11,
    "float32": 12,
    "float64": 13,
    "complex32": 14,
    "complex64": 15,
    "complex128": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "float8_e8m0fnu": 21,
    "float4_e2m1fn_x2": 22,
}

NAMES: Final[dict[int, str]] = {tag: name for name, tag in TAGS.items()}

# A complex number is compared as two of these.
PARTS: Final[dict[str, str]] = {
    "complex32": "float16",
    "complex64": "float32",
    "complex128": "float64",
}

# From the widest to the narrowest: of two of these, the earlier is rounded to the later. More
# significand bits come first, then the larger range.
FLOATS: Final[tuple[str, ...]] = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
)

# Bytes of an element.
ITEMSIZES: Final[dict[str, int]] = {
    **dict.fromkeys(("bool", "uint8", "int8"), 1),
    **dict.fromkeys((name for name in TAGS if name.startswith(("float8", "float4"))), 1),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("uint32", "int32", "float32", "complex32"), 4),
    **dict.fromkeys(("uint64", "int64", "float64", "complex64"), 8),
    "complex128": 16,
}
