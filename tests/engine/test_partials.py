"""Parts of a tensor add up to the whole: boxes of any strides, ranges of bytes, in any order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_audit.engine import (
    TAGS,
    Partial,
    fingerprint,
    merge,
    partial,
    partial_bytes,
)
from repro_audit.engine.tags import ITEMSIZES

QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tensor(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[int]]]:
    """A shape, and cuts of each dimension."""
    shape = (*draw(st.lists(st.integers(1, 6), max_size=3)), draw(st.integers(1, 70)))
    cuts = []
    for size in shape:
        inside = draw(st.lists(st.integers(0, size), max_size=2))
        cuts.append(sorted({0, size, *inside}))
    return shape, cuts


def boxes(t: torch.Tensor, cuts: list[list[int]]) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    found = []
    for index in np.ndindex(*(len(c) - 1 for c in cuts)):
        start = tuple(c[i] for c, i in zip(cuts, index, strict=True))
        stop = tuple(c[i + 1] for c, i in zip(cuts, index, strict=True))
        found.append((t[tuple(map(slice, start, stop))], start))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.complex128])
@given(tiling=tilings(), copied=st.booleans(), turned=st.booleans())
@QUICK
def test_boxes_add_up(
    each_engine: str,
    dtype: torch.dtype,
    tiling: tuple[tuple[int, ...], list[list[int]]],
    copied: bool,
    turned: bool,
) -> None:
    shape, cuts = tiling
    whole = tensor(shape, dtype)
    parts = []
    for given_box, start in reversed(boxes(whole, cuts)):
        box = given_box.clone() if copied else given_box
        if turned and box.dim() > 1:
            box = box.mT.contiguous().mT
        elif turned and dtype != torch.bfloat16:
            box = box.flip(0).numpy()[::-1]
        parts.append(partial(box, shape, start))
    assert merge(parts).fingerprint() == fingerprint(whole)


def test_a_column_shard_of_a_large_tensor(each_engine: str) -> None:
    whole = tensor((300, 130))
    # Both of these go from row to row in Python.
    widths = {"reference": (65,), "torch": (7, 65)}
    for width in widths.get(each_engine, (1, 3, 65)):
        parts = [
            partial(whole[:, at : at + width].contiguous(), whole.shape, (0, at))
            for at in range(0, 130, width)
        ]
        assert merge(parts).fingerprint() == fingerprint(whole)


@given(cuts=st.lists(st.integers(0, 4 * 300), max_size=5), key=st.integers(0, 2**64 - 1))
@QUICK
def test_ranges_of_bytes_add_up(each_engine: str, cuts: list[int], key: int) -> None:
    whole = tensor((20, 15))
    data = whole.view(torch.uint8).ravel()
    ends = sorted({0, 1200, *cuts})
    parts = [
        partial_bytes(data[a:b], a, "float32", (20, 15), key) for a, b in itertools.pairwise(ends)
    ]
    assert merge(reversed(parts)).fingerprint() == fingerprint(whole, key)


def test_offsets_beyond_32_bits(each_engine: str) -> None:
    """A box far inside a tensor of 2^50 bytes: what the same elements give as ranges of bytes."""
    shape = (1 << 24, 1 << 24)
    box = tensor((3, 5))
    first, second = 12_345_678, 7_654_321
    rows = [
        partial_bytes(row.clone(), 4 * ((first + i) * shape[1] + second), "float32", shape)
        for i, row in enumerate(box)
    ]
    assert partial(box, shape, (first, second)) == merge(rows)


def test_scalars_and_empty_parts(each_engine: str) -> None:
    one = torch.tensor(3.0)
    assert partial(one, (), ()).fingerprint() == fingerprint(one)
    empty = partial(torch.empty(0, 4), (2, 4), (1, 0))
    assert empty == Partial((0, 0), 0, 32, "float32", (2, 4))
    nothing = torch.empty(0, 4)
    assert partial(nothing, (0, 4), (0, 0)).fingerprint() == fingerprint(nothing)


def test_item_sizes() -> None:
    assert set(ITEMSIZES) == set(TAGS)
    for name, size in ITEMSIZES.items():
        if hasattr(torch, name):
            assert getattr(torch, name).itemsize == size


def test_what_cannot_be_merged_says_why(each_engine: str) -> None:
    t = torch.ones(2, 3)
    with pytest.raises(ValueError, match="24 bytes, the tensor 48: some are missing"):
        partial(t, (4, 3), (0, 0)).fingerprint()
    with pytest.raises(ValueError, match="some overlap"):
        merge([partial(t, (2, 3), (0, 0))] * 2).fingerprint()
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and \(3, 3\)"):
        merge([partial(t, (4, 3), (0, 0)), partial(t, (3, 3), (1, 0))])
    with pytest.raises(ValueError, match="key 0 and 1"):
        merge([partial(t, (4, 3), (0, 0)), partial(t, (4, 3), (2, 0), key=1)])
    with pytest.raises(ValueError, match="dimension 1: indices 1 to 4 do not lie in a size of 3"):
        partial(t, (4, 3), (0, 1))
    with pytest.raises(ValueError, match="dimension 0: indices -1"):
        partial(t, (4, 3), (-1, 0))
    with pytest.raises(ValueError, match="x has 2 dimensions, shape 1"):
        partial(t, (6,), (0,))
    with pytest.raises(ValueError, match=r"2\^63"):
        partial(t, (1 << 62, 3), (0, 0))
    with pytest.raises(ValueError, match="there are none"):
        merge([])
    with pytest.raises(ValueError, match="not contiguous"):
        partial_bytes(t.t(), 0, "float32", (2, 3))
    with pytest.raises(ValueError, match="bytes 4 to 28 do not lie in a stream of 24"):
        partial_bytes(t, 4, "float32", (2, 3))
    with pytest.raises(KeyError):
        partial_bytes(t, 0, "float33", (2, 3))
