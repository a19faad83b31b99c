"""The specification in NumPy: written to be read beside `cpp/SPEC.md`, and the tests' oracle.

The same functions as `repro_audit._engine`, hundreds of times slower. Section numbers are those
of the specification. `REPRO_AUDIT_ENGINE=reference` makes it the engine in use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from repro_audit.engine import reference_ulp

_U64 = npt.NDArray[np.uint64]
_MASK = (1 << 64) - 1
_BLOCK_WORDS = 256
_BLOCK_SALT = 0xD1B54A32D192ED03
_MULTISET_SALT = 0x8CB92BA72F3D8DD7
_PIECE_WORDS = 1 << 20  # bounds the temporaries


def mix(x: int) -> int:
    """Section 1: splitmix64's output function."""
    z = (x + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return z ^ z >> 31


def _mix_array(x: _U64) -> _U64:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def word_keys(key: int, lane: int) -> _U64:
    """Section 4: a_l[0 ... 255]."""
    start = (mix(key) + lane) & _MASK
    j = np.arange(_BLOCK_WORDS, dtype=np.uint64)
    return _mix_array(np.uint64(start) + j * np.uint64(2)) >> np.uint64(32) | np.uint64(1)


def block_keys(key: int, lane: int, blocks: _U64) -> _U64:
    """Section 4: b_l[i] for each i in `blocks`."""
    start = ((mix(key) ^ _BLOCK_SALT) + lane) & _MASK
    return _mix_array(np.full(1, start, np.uint64) + blocks * np.uint64(2)) | np.uint64(1)


def bytes_at(address: int, nbytes: int) -> bytes:
    """A copy of `nbytes` bytes of this process's memory; ValueError at the null address."""
    if nbytes and not address:
        raise ValueError("bytes to read at the null address")
    return ctypes.string_at(address, nbytes) if nbytes else b""


def stream(address: int, sizes: Sequence[int], strides: Sequence[int], itemsize: int) -> bytes:
    """Section 2: strided elements in row-major order; strides in elements."""
    if 0 in sizes:
        return b""
    spans = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
    if not address:
        raise ValueError("bytes to read at the null address")
    lowest = sum(span for span in spans if span < 0) * itemsize
    highest = (sum(span for span in spans if span > 0) + 1) * itemsize
    memory = bytes_at(address + lowest, highest - lowest)
    elements = np.ndarray(
        tuple(sizes),
        np.dtype(f"V{itemsize}"),
        memory,
        -lowest,
        tuple(stride * itemsize for stride in strides),
    )
    return elements.tobytes()


def stream_lanes(data: bytes, offset: int, key: int) -> tuple[int, int]:
    """Section 5: the two lanes of bytes that stand at byte `offset` of their stream."""
    head = offset % 4
    padded = bytes(head) + data + bytes(-(head + len(data)) % 4)
    all_words = np.frombuffer(padded, "<u4").astype(np.uint64)
    first = offset // 4
    sums = [0, 0]
    for lane in (0, 1):
        a = word_keys(key, lane)
        for at in range(0, len(all_words), _PIECE_WORDS):
            w = all_words[at : at + _PIECE_WORDS]
            if lane == 1:
                w = (w >> np.uint64(16) | w << np.uint64(16)) & np.uint64(0xFFFFFFFF)
            k = np.uint64(first + at) + np.arange(len(w), dtype=np.uint64)
            blocks, at_block = np.unique(k // np.uint64(_BLOCK_WORDS), return_inverse=True)
            b = block_keys(key, lane, blocks)[at_block]
            products = a[k % np.uint64(_BLOCK_WORDS)] * w * b
            sums[lane] += int(np.add.reduce(products, dtype=np.uint64))
    return sums[0] & _MASK, sums[1] & _MASK


def finalize(lane0: int, lane1: int, nbytes: int, tag: int, /) -> bytes:
    """Section 6: the digest of a whole stream's lanes."""
    h = mix(nbytes ^ mix(tag))
    hi = mix(lane0 ^ h)
    lo = mix(lane1 ^ mix(h ^ hi))
    hi ^= lo
    return hi.to_bytes(8, "big") + lo.to_bytes(8, "big")


def lanes(
    address: int, nbytes: int, offset: int, key: int = 0, threads: int = 0, /
) -> tuple[int, int]:
    """As `_engine.lanes`; one thread whatever is asked for."""
    return stream_lanes(bytes_at(address, nbytes), offset, key)


def readable(address: int, nbytes: int, /) -> bool:
    """As `_engine.readable`, which it asks: NumPy has no such question."""
    from repro_audit import _engine

    return _engine.readable(address, nbytes)


def lanes_box(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    whole: Sequence[int],
    start: Sequence[int],
    key: int = 0,
    threads: int = 0,
    /,
) -> tuple[int, int]:
    """As `_engine.lanes_box`: a row at a time, each at its place in the whole's stream."""
    if not len(whole) == len(start) == len(sizes):
        raise ValueError("box: sizes, whole and start differ in length")
    if any(at < 0 or at + n > most for at, n, most in zip(start, sizes, whole, strict=True)):
        raise ValueError("box: it does not lie within the whole")
    data = stream(address, sizes, strides, itemsize)
    row = (sizes[-1] if sizes else 1) * itemsize
    sums = [0, 0]
    for i, index in enumerate(np.ndindex(tuple(sizes[:-1])) if data else ()):
        position = 0
        for at, first, size in zip((*index, 0), start, whole, strict=False):
            position = position * size + first + at
        found = stream_lanes(data[i * row : (i + 1) * row], position * itemsize, key)
        sums = [sums[0] + found[0], sums[1] + found[1]]
    return sums[0] & _MASK, sums[1] & _MASK


def digest(address: int, nbytes: int, tag: int, key: int = 0, threads: int = 0, /) -> bytes:
    """As `_engine.digest`."""
    return finalize(*lanes(address, nbytes, 0, key), nbytes, tag)


def digest_strided(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    tag: int,
    key: int = 0,
    threads: int = 0,
    end: int = 0,
    /,
) -> bytes:
    """As `_engine.digest_strided`."""
    last = sum((n - 1) * max(0, step) for n, step in zip(sizes, strides, strict=True))
    if end and 0 not in sizes and address + (last + 1) * itemsize > end:
        raise ValueError("digest_strided: elements at or behind `end`")
    data = stream(address, sizes, strides, itemsize)
    return finalize(*stream_lanes(data, 0, key), len(data), tag)


def digest_table(table: Any, threads: int = 0, /) -> bytes:
    """As `_engine.digest_table`."""
    rows = np.frombuffer(table, np.uint64)
    if len(rows) % 3:
        raise ValueError("table: rows are three 64-bit numbers")
    return b"".join(digest(*map(int, row)) for row in rows.reshape(-1, 3))


def multiset(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    key: int = 0,
    threads: int = 0,
    /,
) -> tuple[int, int]:
    """Section 7, as `_engine.multiset`."""
    c = mix(key) ^ _MULTISET_SALT
    a = np.uint64(mix(c) >> 32 | 0x80000001)
    b = np.uint64(mix(c + 1) >> 32 | 0x80000001)
    kappa = np.uint64(mix(c + 2) >> 32)
    low = np.uint64(0xFFFFFFFF)

    def fold(p: _U64) -> _U64:
        return (p ^ p >> np.uint64(32)) & low

    raw = stream(address, sizes, strides, itemsize)
    halves = np.frombuffer(raw, f"<u{min(itemsize, 8)}").astype(np.uint64)
    y = z = np.zeros(len(raw) // itemsize, np.uint64)
    sums = [0, 0]
    for half in halves.reshape(-1, max(1, itemsize // 8)).T:
        lo = (half & low) ^ z
        hi = half >> np.uint64(32) ^ y
        y = hi ^ kappa ^ fold(lo * a)
        z = lo ^ fold(y * b)
        sums[0] += int(np.add.reduce(z * z, dtype=np.uint64))
        sums[1] += int(np.add.reduce(y * z, dtype=np.uint64))
    return sums[0] & _MASK, sums[1] & _MASK


def ulp(
    address_a: int,
    strides_a: Sequence[int],
    address_b: int,
    strides_b: Sequence[int],
    sizes: Sequence[int],
    tag_a: int,
    tag_b: int = 0,
    threads: int = 0,
    /,
) -> dict[str, Any]:
    """Section 9, as `_engine.ulp`."""
    return reference_ulp.divergence(
        *_codes(address_a, strides_a, address_b, strides_b, sizes, tag_a, tag_b)
    )


def ulp_channels(
    address_a: int,
    strides_a: Sequence[int],
    address_b: int,
    strides_b: Sequence[int],
    sizes: Sequence[int],
    tag_a: int,
    tag_b: int,
    dim: int,
    threads: int = 0,
    /,
) -> list[tuple[int, int, int]]:
    """As `_engine.ulp_channels`."""
    if dim >= len(sizes):
        raise ValueError("ulp_channels: no such dimension")
    a, b, f = _codes(address_a, strides_a, address_b, strides_b, sizes, tag_a, tag_b)
    shape = tuple(sizes)
    channels = []
    for x, y in zip(
        np.moveaxis(a.reshape(shape), dim, 0), np.moveaxis(b.reshape(shape), dim, 0), strict=True
    ):
        found = reference_ulp.divergence(x.ravel(), y.ravel(), f)
        channels.append((found["differing"], found["unordered"], found["max_ulp"]))
    return channels


def _codes(
    address_a: int,
    strides_a: Sequence[int],
    address_b: int,
    strides_b: Sequence[int],
    sizes: Sequence[int],
    tag_a: int,
    tag_b: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], reference_ulp.Format]:
    """Both sides' codes, flat, in the format that they are compared in."""
    format_a = reference_ulp.format_of(tag_a)
    format_b = reference_ulp.format_of(tag_b or tag_a)
    a = np.frombuffer(stream(address_a, sizes, strides_a, format_a.width), format_a.bits)
    b = np.frombuffer(stream(address_b, sizes, strides_b, format_b.width), format_b.bits)
    if format_a != format_b:
        a = reference_ulp.rounded(a, format_a, format_b)
    return a, b, format_b
