"""Families of tensors no two of which hold the same values equally often: the multiset digest's."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from benchmarks.quality.families import (
    NUMEL,
    Family,
    bit_flips,
    constants,
    drawn,
    normal,
    part_of,
    ulp_many,
    ulp_pairs,
    ulp_quads,
)


def replaced_bf16(rng: np.random.Generator, most: int) -> Family:
    """One of 1,024 bfloat16 zeros replaced by every other bit pattern"""
    codes = np.zeros(1024, np.int16)
    t = torch.from_numpy(codes).view(torch.bfloat16)
    for code in part_of(rng, most, list(range(1 << 16))):
        codes[17] = np.uint16(code).astype(np.int16)
        yield t


def counts(rng: np.random.Generator, most: int) -> Family:
    """Zeros and ones in every proportion, float32 and int8"""
    for kind in (torch.float32, torch.int8):
        t = torch.zeros(NUMEL, dtype=kind)
        yield t
        for at in part_of(rng, most // 2, list(range(NUMEL))):
            t[: at + 1] = 1
            yield t


def trades(rng: np.random.Generator, most: int) -> Family:
    """+d at one element of 64 KiB of int32 and -d at another: the sum stays"""
    base = rng.choice(1 << 30, NUMEL, replace=False).astype(np.int32)
    t = torch.from_numpy(base)
    yield t

    def draw() -> tuple[int, int, int]:
        a, b = rng.choice(NUMEL, 2, replace=False).tolist()
        return a, b, int(rng.integers(1, 1 << 20))

    for a, b, d in drawn(most, draw):
        base[a] += d
        base[b] -= d
        yield t
        base[a] -= d
        base[b] += d


def equal_moments(rng: np.random.Generator, most: int) -> Family:
    """Triples of int32 with equal sums and sums of squares, at every place of a range"""
    values = np.zeros(3, np.int32)
    t = torch.from_numpy(values)
    # x + {0, 4, 5} and x + {1, 2, 6}: of Prouhet's, Tarry's and Escott's problem.
    for x, triple in itertools.product(range(most // 2), ((0, 4, 5), (1, 2, 6))):
        values[:] = np.array(triple) + 7 * x
        yield t


def doubled(rng: np.random.Generator, most: int) -> Family:
    """One element of 64 KiB of float32 a copy of another: one value twice, one not at all"""
    base = normal(rng)
    t = torch.from_numpy(base)
    yield t
    for a, b in drawn(most, lambda: tuple(rng.choice(NUMEL, 2, replace=False).tolist())):
        kept, base[a] = base[a], base[b]
        yield t
        base[a] = kept


def first_lengths(rng: np.random.Generator, most: int) -> Family:
    """Every number of first bytes of zeros, from one on"""
    zeros = torch.zeros(1 << 16, dtype=torch.uint8)
    for length in part_of(rng, most, list(range(1, len(zeros) + 1))):
        yield zeros[:length]


def sorted_low_entropy(rng: np.random.Generator, most: int) -> Family:
    """Every multiset of 9 bfloat16 out of 0, 1, -1 and 0.5, at every number of further zeros"""
    values = [0.0, 1.0, -1.0, 0.5]
    bags = list(itertools.combinations_with_replacement(values[1:], 9))
    for bag, zeros in part_of(rng, most, list(itertools.product(bags, range(300)))):
        yield torch.tensor([*bag, *[0.0] * zeros], dtype=torch.bfloat16)


BAGS = [
    bit_flips,
    ulp_pairs,
    ulp_quads,
    ulp_many,
    constants,
    replaced_bf16,
    counts,
    trades,
    equal_moments,
    doubled,
    first_lengths,
    sorted_low_entropy,
]
