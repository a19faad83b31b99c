"""The specification in NumPy: written to be read beside `cpp/SPEC.md`, and the tests' oracle.

Section numbers are those of the specification. Hundreds of times slower than the native engine;
`REPRO_AUDIT_ENGINE=reference` makes it, through `by_stream`, the engine in use.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_U64 = npt.NDArray[np.uint64]
_MASK = (1 << 64) - 1
_BLOCK_WORDS = 256
BLOCK_SALT = 0xD1B54A32D192ED03
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
    start = ((mix(key) ^ BLOCK_SALT) + lane) & _MASK
    return _mix_array(np.full(1, start, np.uint64) + blocks * np.uint64(2)) | np.uint64(1)


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


def multiset_keys(key: int) -> tuple[int, int, int]:
    """Section 7: a, b and kappa."""
    c = mix(key) ^ _MULTISET_SALT
    return mix(c) >> 32 | 0x80000001, mix(c + 1) >> 32 | 0x80000001, mix(c + 2) >> 32


def multiset_lanes(data: bytes, itemsize: int, key: int) -> tuple[int, int]:
    """Section 7: the multiset lanes of elements of `itemsize` bytes."""
    a, b, kappa = map(np.uint64, multiset_keys(key))
    low = np.uint64(0xFFFFFFFF)

    def fold(p: _U64) -> _U64:
        return (p ^ p >> np.uint64(32)) & low

    halves = np.frombuffer(data, f"<u{min(itemsize, 8)}").astype(np.uint64)
    y = z = np.zeros(len(data) // itemsize, np.uint64)
    sums = [0, 0]
    for half in halves.reshape(-1, max(1, itemsize // 8)).T:
        lo = (half & low) ^ z
        hi = half >> np.uint64(32) ^ y
        y = hi ^ kappa ^ fold(lo * a)
        z = lo ^ fold(y * b)
        sums[0] += int(np.add.reduce(z * z, dtype=np.uint64))
        sums[1] += int(np.add.reduce(y * z, dtype=np.uint64))
    return sums[0] & _MASK, sums[1] & _MASK


def sample_indices(count: int, numel: int) -> list[int]:
    """Section 11: which elements of a stream of `numel` stand for all; ValueError for too many."""
    if count > numel:
        raise ValueError("sample: more than there are elements")
    return [i * numel // count for i in range(count)]
