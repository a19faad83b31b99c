"""Writes engine_vectors.json, by the reference engine: boxes, rows, the composite, ULP divergence.

    python tests/vectors/generate.py

`test_engine_vectors.py` generates them again and compares, and holds every engine to them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from repro_audit.engine import TAGS, Fingerprints, reference
from repro_audit.engine.tags import ITEMSIZES
from repro_audit.model import Fingerprint

FILE = Path(__file__).with_name("engine_vectors.json")

BOXES = [  # dtype, shape of the whole, where the box begins, its sizes, key
    ("float32", (8, 6), (0, 0), (8, 6), 0),
    ("float32", (8, 6), (2, 3), (4, 2), 0),
    ("bfloat16", (300, 700), (299, 1), (1, 699), 0),
    ("uint8", (5, 7, 11), (1, 2, 3), (3, 4, 5), 7),
    ("complex128", (3, 4, 5), (0, 3, 0), (3, 1, 5), 0),
    ("int64", (1 << 20, 1 << 15), (1 << 19, 12345), (2, 3), 2**64 - 1),
    ("float16", (4, 0, 3), (1, 0, 0), (2, 0, 3), 0),
    ("float64", (), (), (), 0),
]
ROWS = [("float32", (4, 3)), ("uint8", (7, 5)), ("int64", (0, 2)), ("bfloat16", (3, 0))]
COMPOSITES = [
    {},
    {"weight": ("float32", (2, 3)), "bias": ("float32", (3,))},
    {
        "b": ("int64", ()),
        "a.é": ("uint8", (5,)),
        "a\\\t\n": ("float16", (1, 2)),
        "z": ("bool", (0,)),
    },
]

# Codes of each float format in which all its kinds of numbers meet, as (a, b).
PAIRS = {
    "float64": ["0000000000000000", "8000000000000000", "3ff0000000000000", "7ff0000000000000"],
    "float32": ["00000000", "80000000", "3f800000", "bf800001", "7f7fffff", "7f800000", "7fc00001"],
    "float16": ["0000", "8000", "3c00", "3c01", "7bff", "7c00", "7e00", "fe01", "0001"],
    "bfloat16": ["0000", "8000", "3f80", "bf81", "7f7f", "ff80", "7fc0", "ffc1", "0001"],
    "float8_e4m3fn": ["00", "80", "38", "b9", "7e", "7f", "ff", "01"],
    "float8_e4m3fnuz": ["00", "80", "38", "b9", "7f", "ff", "01"],
    "float8_e5m2": ["00", "80", "3c", "bd", "7b", "7c", "fe", "01"],
    "float8_e5m2fnuz": ["00", "80", "3c", "bd", "7f", "ff", "01"],
    "float8_e8m0fnu": ["00", "7f", "80", "fe", "ff"],
    "int8": ["00", "80", "7f", "ff"],
    "uint64": ["0000000000000000", "ffffffffffffffff", "8000000000000001"],
    "int64": ["0000000000000000", "8000000000000000", "7fffffffffffffff"],
    "bool": ["00", "01"],
}
ROUNDED = [  # pairs of dtypes, the wider first, and its codes
    ("float32", "bfloat16", ["3f808000", "3f818000", "7f7fffff", "ffc00001", "33800000"]),
    ("float64", "float16", ["3ff0020000000000", "40effe0000000000", "3e70000000000000"]),
    ("float32", "float8_e4m3fn", ["43e80000", "43e00001", "7f800000", "3f880000", "80000000"]),
    ("float16", "float8_e5m2", ["3c80", "3d80", "7bff", "fe00", "0001"]),
]


def pattern(nbytes: int) -> np.ndarray[Any, Any]:
    """Bytes i mod 251; of at least one, so that there is an address."""
    return (np.arange(max(1, nbytes)) % 251).astype(np.uint8)


def row_major(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements."""
    strides = [1] * len(sizes)
    for d in range(len(sizes) - 1, 0, -1):
        strides[d - 1] = strides[d] * sizes[d]
    return tuple(strides)


def digest(engine: Any, dtype: str, sizes: tuple[int, ...]) -> str:
    """Of the pattern as a tensor."""
    nbytes = int(np.prod(sizes, dtype=np.int64)) * ITEMSIZES[dtype]
    data = pattern(nbytes)
    return str(engine.digest(data.ctypes.data, nbytes, TAGS[dtype]).hex())


def box(engine: Any, dtype: str, whole: Any, start: Any, sizes: Any, key: int) -> list[str]:
    """Lanes of a box that holds the pattern."""
    itemsize = ITEMSIZES[dtype]
    data = pattern(int(np.prod(sizes, dtype=np.int64)) * itemsize)
    lanes = engine.lanes_box(
        data.ctypes.data, tuple(sizes), row_major(tuple(sizes)), itemsize, whole, start, key
    )
    return [f"{lane:016x}" for lane in lanes]


def rows(engine: Any, dtype: str, sizes: tuple[int, ...]) -> tuple[list[str], str]:
    """Digests of the slices along dimension 0, and their multiset."""
    row = int(np.prod(sizes[1:], dtype=np.int64)) * ITEMSIZES[dtype]
    data, tag = pattern(sizes[0] * row), TAGS[dtype]
    digests = [engine.digest(data.ctypes.data + i * row, row, tag) for i in range(sizes[0])]
    held = np.frombuffer(b"".join(digests) or bytes(16), np.uint8)
    lanes = engine.multiset(held.ctypes.data, (sizes[0],), (1,), 16)
    return [d.hex() for d in digests], engine.finalize(*lanes, 16 * sizes[0], tag + 512).hex()


def composite(engine: Any, tensors: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Digests of patterns by name, and the composite over them."""
    by_name = {
        name: Fingerprint(digest(engine, dtype, sizes), dtype, sizes, 0, 0)
        for name, (dtype, sizes) in tensors.items()
    }
    return {name: f.digest for name, f in by_name.items()}, Fingerprints(by_name).composite


def exact(value: Any) -> Any:
    """JSON of a figure; float64 as 16 hex digits, as JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    return [exact(item) for item in value] if isinstance(value, tuple) else value


def ulp(engine: Any, a: str, b: str, codes_a: list[str], codes_b: list[str]) -> dict[str, Any]:
    """Every figure of a divergence; codes are hexadecimal, most significant digit first."""
    left, right = (
        np.frombuffer(b"".join(bytes.fromhex(code)[::-1] for code in codes), np.uint8)
        for codes in (codes_a, codes_b)
    )
    figures = engine.ulp(
        left.ctypes.data, (1,), right.ctypes.data, (1,), (len(codes_a),), TAGS[a], TAGS[b]
    )
    histogram = {str(i): n for i, n in enumerate(figures["histogram"]) if n}
    return {**{k: exact(v) for k, v in sorted(figures.items())}, "histogram": histogram}


def ulp_cases() -> list[tuple[str, str, list[str], list[str]]]:
    """Every code against every one of its format; wider ones against what they round to, and 0."""
    cases = []
    for dtype, codes in PAIRS.items():
        pairs = [(a, b) for a in codes for b in codes]
        cases.append((dtype, dtype, [a for a, _ in pairs], [b for _, b in pairs]))
    for wide, narrow, codes in ROUNDED:
        zero = "00" * ITEMSIZES[narrow]
        cases.append((wide, narrow, codes, [zero] * len(codes)))
    return cases


def generate(engine: Any) -> dict[str, Any]:
    """All vectors, as one engine computes them."""
    return {
        "boxes": [
            {
                "dtype": dtype,
                "whole": list(whole),
                "start": list(start),
                "sizes": list(sizes),
                "key": f"{key:016x}",
                "lanes": box(engine, dtype, whole, start, sizes, key),
            }
            for dtype, whole, start, sizes, key in BOXES
        ],
        "rows": [
            {"dtype": dtype, "sizes": list(sizes), "digests": digests, "multiset": multiset}
            for dtype, sizes in ROWS
            for digests, multiset in [rows(engine, dtype, sizes)]
        ],
        "composites": [
            {
                "tensors": [
                    {"name": name, "dtype": dtype, "shape": list(shape), "digest": digests[name]}
                    for name, (dtype, shape) in tensors.items()
                ],
                "composite": total,
            }
            for tensors in COMPOSITES
            for digests, total in [composite(engine, tensors)]
        ],
        "ulp": [
            {
                "dtype_a": a,
                "dtype_b": b,
                "a": codes_a,
                "b": codes_b,
                "figures": ulp(engine, a, b, codes_a, codes_b),
            }
            for a, b, codes_a, codes_b in ulp_cases()
        ],
    }


def text(vectors: dict[str, Any]) -> str:
    return json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    from repro_audit.engine import choice, select

    select("reference")
    assert choice.engine() is reference
    FILE.write_text(text(generate(reference)), encoding="utf-8")
