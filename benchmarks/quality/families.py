"""Families of tensors that differ as real ones do: the cases in which a checksum must not agree.

A family is a generator of tensors, all different from one another, the first one the original. It
may yield the same memory again and again, changed in between. What can be enumerated is complete as
long as that is no more than `most` tensors, else a random part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

NBYTES = 1 << 16
NUMEL = NBYTES // 4
BLOCK = 256  # words of a block of the digest, which a change might line up with
SIDE = 128  # of a square of NUMEL elements

Family = Iterator[torch.Tensor]


def drawn(most: int, draw: Callable[[], Any]) -> Iterator[Any]:
    """`most` different results of `draw`."""
    seen = set()
    while len(seen) < most:
        case = draw()
        if case not in seen:
            seen.add(case)
            yield case


def part_of(rng: np.random.Generator, most: int, cases: list[Any]) -> Iterable[Any]:
    """All cases, or `most` of them in their order."""
    if len(cases) <= most:
        return cases
    return [cases[i] for i in np.sort(rng.choice(len(cases), most, replace=False))]


def normal(rng: np.random.Generator) -> np.ndarray:
    """64 KiB of float32 as weights are distributed; no two elements are equal."""
    values = np.unique(rng.standard_normal(2 * NUMEL).astype(np.float32))
    return rng.permutation(values)[:NUMEL].copy()


def flips(rng: np.random.Generator, most: int, base: np.ndarray) -> Family:
    """Every single bit of `base` flipped."""
    octets, t = base.view(np.uint8), torch.from_numpy(base)
    yield t
    for at in part_of(rng, most, list(range(8 * base.nbytes))):
        octets[at >> 3] ^= 1 << (at & 7)
        yield t
        octets[at >> 3] ^= 1 << (at & 7)


def bit_flips(rng: np.random.Generator, most: int) -> Family:
    """Every single bit of 64 KiB of float32 flipped"""
    return flips(rng, most, normal(rng))


def bit_flips_of_zeros(rng: np.random.Generator, most: int) -> Family:
    """Every single bit of 64 KiB of zeros set"""
    return flips(rng, most, np.zeros(NUMEL, np.float32))


def nudges(rng: np.random.Generator, most: int, elements: int) -> Family:
    """`elements` elements moved by 1 ULP, up or down."""
    base = normal(rng)
    bits, t = base.view(np.int32), torch.from_numpy(base)
    yield t

    def draw() -> tuple[tuple[int, int], ...]:
        at = sorted(rng.choice(NUMEL, elements, replace=False).tolist())
        return tuple(zip(at, rng.choice((-1, 1), elements).tolist(), strict=True))

    for case in drawn(most, draw):
        for at, step in case:
            bits[at] += step
        yield t
        for at, step in case:
            bits[at] -= step


def ulp_pairs(rng: np.random.Generator, most: int) -> Family:
    """Two elements by 1 ULP, up or down"""
    return nudges(rng, most, 2)


def ulp_quads(rng: np.random.Generator, most: int) -> Family:
    """Four elements by 1 ULP, up or down"""
    return nudges(rng, most, 4)


def ulp_many(rng: np.random.Generator, most: int) -> Family:
    """A random half of the elements by 1 ULP"""
    base = normal(rng)
    bits, t = base.view(np.int32), torch.from_numpy(base)
    yield t
    original = bits.copy()
    for _ in range(most // 4):
        bits += rng.integers(0, 2, NUMEL, dtype=np.int32)
        yield t
        bits[:] = original


def swaps(rng: np.random.Generator, most: int) -> Family:
    """Two elements exchanged: all neighbours, and random ones"""
    base = normal(rng)
    t = torch.from_numpy(base)
    yield t
    near = part_of(rng, most, [(i, i + 1) for i in range(NUMEL - 1)])
    far = drawn(
        max(0, most - NUMEL),
        lambda: tuple(sorted(rng.choice(NUMEL, 2, replace=False).tolist())),
    )
    for i, j in itertools.chain(near, (case for case in far if case[1] - case[0] > 1)):
        base[i], base[j] = base[j], base[i]
        yield t
        base[i], base[j] = base[j], base[i]


def rotations(rng: np.random.Generator, most: int) -> Family:
    """Rotated by every number of bytes"""
    octets = normal(rng).view(np.uint8)
    for by in part_of(rng, most, list(range(NBYTES))):
        yield torch.from_numpy(np.roll(octets, by)).view(torch.float32)


def shifts(rng: np.random.Generator, most: int) -> Family:
    """Shifted by every number of elements, either way, zeros moved in"""
    base = normal(rng)
    yield torch.from_numpy(base)
    for by in part_of(rng, most, list(range(1, NUMEL))):
        yield torch.from_numpy(np.concatenate([np.zeros(by, np.float32), base[:-by]]))
        yield torch.from_numpy(np.concatenate([base[by:], np.zeros(by, np.float32)]))


def block_swaps(rng: np.random.Generator, most: int) -> Family:
    """Two blocks of 64 bytes, 1 KiB or 4 KiB exchanged"""
    base = normal(rng)
    t = torch.from_numpy(base)
    yield t
    cases = [
        (words, i, j)
        for words in (16, BLOCK, 4 * BLOCK)
        for i, j in itertools.combinations(range(NUMEL // words), 2)
    ]
    for words, i, j in part_of(rng, most, cases):
        blocks = base.reshape(-1, words)
        blocks[[i, j]] = blocks[[j, i]]
        yield t
        blocks[[i, j]] = blocks[[j, i]]


def rectangles(rng: np.random.Generator, most: int, width: int) -> Family:
    """Changes +d, -d, -d, +d at the corners of rectangles in rows of `width` words."""
    base = normal(rng)
    bits, t = base.view(np.uint32), torch.from_numpy(base)
    yield t
    rows = NUMEL // width

    def draw() -> tuple[int, ...]:
        i, k = sorted(rng.choice(rows, 2, replace=False).tolist())
        j, m = sorted(rng.choice(width, 2, replace=False).tolist())
        d = 1 << int(rng.integers(0, 32))
        return i, k, j, m, d

    for i, k, j, m, d in drawn(most, draw):
        corners = [i * width + j, k * width + m, i * width + m, k * width + j]
        change = np.array([d, d, -d % 2**32, -d % 2**32], np.uint32)
        bits[corners] += change
        yield t
        bits[corners] -= change


def rectangles_of_blocks(rng: np.random.Generator, most: int) -> Family:
    """+d -d -d +d at two words of two blocks, d a power of two"""
    return rectangles(rng, most, BLOCK)


def rectangles_of_rows(rng: np.random.Generator, most: int) -> Family:
    """+d -d -d +d at two columns of two rows of a square, d a power of two"""
    return rectangles(rng, most, SIDE)


def signs_of_a_subset(rng: np.random.Generator, most: int) -> Family:
    """The sign of a random half of the elements"""
    base = normal(rng)
    bits, t = base.view(np.uint32), torch.from_numpy(base)
    yield t
    original = bits.copy()
    for _ in range(most // 4):
        bits ^= rng.integers(0, 2, NUMEL, dtype=np.uint32) << 31
        yield t
        bits[:] = original


def signs_of_blocks(rng: np.random.Generator, most: int) -> Family:
    """The signs of every subset of 16 blocks of 1 KiB"""
    base = normal(rng)[: 16 * BLOCK]
    t = torch.from_numpy(base)
    blocks = base.reshape(16, BLOCK)
    masks = [[bool(case >> i & 1) for i in range(16)] for case in range(1 << 16)]
    for mask in part_of(rng, most, masks):
        blocks[mask] *= -1
        yield t
        blocks[mask] *= -1


def signs_of_rectangles(rng: np.random.Generator, most: int) -> Family:
    """The signs at the corners of random rectangles of blocks and words"""
    base = normal(rng)
    bits, t = base.view(np.uint32), torch.from_numpy(base)
    yield t

    def draw() -> tuple[int, ...]:
        rows = sorted(rng.choice(NUMEL // BLOCK, 2, replace=False).tolist())
        return (*rows, *sorted(rng.choice(BLOCK, 2, replace=False).tolist()))

    for i, k, j, m in drawn(most, draw):
        corners = [i * BLOCK + j, i * BLOCK + m, k * BLOCK + j, k * BLOCK + m]
        bits[corners] ^= 1 << 31
        yield t
        bits[corners] ^= 1 << 31


def constants(rng: np.random.Generator, most: int) -> Family:
    """Constants 0, 1, -1 and 0.1 of every length to 64 KiB of float32"""
    filled = {value: torch.full((NUMEL,), value) for value in (0.0, 1.0, -1.0, 0.1)}
    yield filled[0.0][:1]
    cases = [(value, numel) for value in filled for numel in range(1, NUMEL + 1)][1:]
    for value, numel in part_of(rng, most, cases):
        yield filled[value][:numel]


def lengths(rng: np.random.Generator, most: int) -> Family:
    """Every number of first bytes, of noise and of zeros"""
    noise = torch.from_numpy(normal(rng)).view(torch.uint8)
    zeros = torch.zeros(NBYTES, dtype=torch.uint8)
    noise[0] = 1  # or one byte of noise may be zero, and equal
    cases = [(t, n) for t in (noise, zeros) for n in range(1, NBYTES + 1)]
    for t, n in part_of(rng, most, cases):
        yield t[:n]


def low_entropy_bf16(rng: np.random.Generator, most: int) -> Family:
    """Every bfloat16 tensor of 9 elements out of 0, 1, -1 and 0.5"""
    values = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.bfloat16)
    cases = list(itertools.product(range(4), repeat=9))
    indices = torch.tensor(list(part_of(rng, most, cases)))
    yield from values[indices]


def low_entropy_fp8(rng: np.random.Generator, most: int) -> Family:
    """Every float8_e4m3fn tensor of 18 elements out of 0 and 1"""
    cases = list(itertools.product((0, 0x38), repeat=18))
    octets = torch.tensor(list(part_of(rng, most, cases)), dtype=torch.uint8)
    for row in octets:
        yield row.view(torch.float8_e4m3fn)


def sparse_bf16(rng: np.random.Generator, most: int) -> Family:
    """bfloat16 zeros with one or two elements out of 1, -1, 0.5, -0.5"""
    t = torch.zeros(NUMEL, dtype=torch.bfloat16)
    bits = t.view(torch.int16).numpy()
    yield t
    values = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.bfloat16).view(torch.int16).tolist()

    def draw() -> tuple[tuple[int, int], ...]:
        at = sorted(rng.choice(NUMEL, int(rng.integers(1, 3)), replace=False).tolist())
        return tuple((i, values[int(rng.integers(4))]) for i in at)

    for case in drawn(most, draw):
        for at, value in case:
            bits[at] = value
        yield t
        for at, _ in case:
            bits[at] = 0


def permutations(rng: np.random.Generator, most: int) -> Family:
    """Random permutations of all elements"""
    base = normal(rng)
    yield torch.from_numpy(base)
    for _ in range(most // 8):
        yield torch.from_numpy(rng.permutation(base))


def permutations_of_few(rng: np.random.Generator, most: int) -> Family:
    """Every permutation of 9 elements"""
    base = normal(rng)[:9]
    cases = list(itertools.permutations(range(9)))
    yield from torch.from_numpy(base)[torch.tensor(list(part_of(rng, most, cases)))]


FAMILIES = [
    bit_flips,
    bit_flips_of_zeros,
    ulp_pairs,
    ulp_quads,
    ulp_many,
    swaps,
    rotations,
    shifts,
    block_swaps,
    rectangles_of_blocks,
    rectangles_of_rows,
    signs_of_rectangles,
    signs_of_blocks,
    signs_of_a_subset,
    constants,
    lengths,
    low_entropy_bf16,
    low_entropy_fp8,
    sparse_bf16,
    permutations,
    permutations_of_few,
]
