"""Partial lanes: what a shard, a box or a range of bytes adds to the digest of the whole tensor.

Ranks that hold shards of one tensor each compute their own; merged, in any order, they give the
fingerprint of the whole, which nobody ever held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from repro_audit.engine import choice, views
from repro_audit.engine.tags import ITEMSIZES, TAGS
from repro_audit.model import Fingerprint

_MODULUS = 1 << 64


@dataclass(frozen=True, slots=True)
class Partial:
    """Lanes of some of the bytes of a tensor of dtype `dtype` and shape `shape`, for `key`.

    `nbytes` are the bytes they are of, `total` those of the whole tensor's stream. Parts add up
    (`a + b`) in any order; that they do not overlap is for the caller to see to.
    """

    lanes: tuple[int, int]
    nbytes: int
    total: int
    dtype: str
    shape: tuple[int, ...]
    key: int = 0

    def __add__(self, other: Partial) -> Partial:
        """The lanes of both; ValueError where these are not parts of one tensor."""
        for name in ("dtype", "shape", "total", "key"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"parts of different tensors: {name} {ours} and {theirs}")
        lane0, lane1 = ((a + b) % _MODULUS for a, b in zip(self.lanes, other.lanes, strict=True))
        return replace(self, lanes=(lane0, lane1), nbytes=self.nbytes + other.nbytes)

    def fingerprint(self) -> Fingerprint:
        """The whole tensor's; ValueError where these are not all of its bytes."""
        if self.nbytes != self.total:
            raise ValueError(
                f"these parts hold {self.nbytes} bytes, the tensor {self.total}: "
                + ("some are missing" if self.nbytes < self.total else "some overlap")
            )
        digest = choice.engine().finalize(*self.lanes, self.total, TAGS[self.dtype])
        return Fingerprint(digest.hex(), self.dtype, self.shape, self.total, self.key)


def partial(x: Any, shape: Sequence[int], start: Sequence[int], key: int = 0) -> Partial:
    """What the box `x`, of any strides, adds to a tensor of shape `shape` in which it begins at
    index `start`.

    `x` is a dense torch tensor or a NumPy array with as many dimensions as `shape`. Time: that of
    reading `x`; rows of few bytes cost more, as strided tensors do. Raises ValueError where the box
    does not lie within the shape, else as `fingerprint` does.
    """
    view = views.of(x)
    whole, first = tuple(map(int, shape)), tuple(map(int, start))
    if not len(view.shape) == len(whole) == len(first):
        raise ValueError(
            f"x has {len(view.shape)} dimensions, shape {len(whole)} and start {len(first)}: "
            "they must be as many"
        )
    for dim, (size, at, most) in enumerate(zip(view.shape, first, whole, strict=True)):
        if at < 0 or at + size > most:
            raise ValueError(
                f"dimension {dim}: indices {at} to {at + size} do not lie in a size of {most}"
            )
    total = math.prod(whole) * view.itemsize
    if total >= 1 << 63:
        raise ValueError(f"shape {whole}: a tensor of {total} bytes, 2^63 or more")
    lanes = choice.engine().lanes_box(
        view.address, view.shape, view.strides, view.itemsize, whole, first, key
    )
    return Partial(lanes, view.nbytes, total, view.dtype, whole, key)


def partial_bytes(
    data: Any, offset: int, dtype: str, shape: Sequence[int], key: int = 0
) -> Partial:
    """What some bytes of a stream add to a tensor of dtype `dtype` (its name) and shape `shape`.

    `data` is a contiguous torch tensor or NumPy array of any dtype, whose memory is bytes `offset`
    and following of the stream: row-major, little-endian, complex numbers real part first. Elements
    may be cut. Raises ValueError for a `data` that is not contiguous, or a range that does not lie
    within the stream, KeyError for an unknown dtype name, else as `fingerprint` does.
    """
    view = views.of(data)
    if not view.contiguous:
        raise ValueError("data: not contiguous; copy it first (`.contiguous()`)")
    whole = tuple(map(int, shape))
    total = math.prod(whole) * ITEMSIZES[dtype]
    if offset < 0 or offset + view.nbytes > total:
        raise ValueError(
            f"offset: bytes {offset} to {offset + view.nbytes} do not lie in a stream of {total}"
        )
    lanes = choice.engine().lanes(view.address, view.nbytes, offset, key)
    return Partial(lanes, view.nbytes, total, dtype, whole, key)


def merge(parts: Iterable[Partial]) -> Partial:
    """The sum of at least one part, in any order; ValueError as for `Partial.__add__`."""
    merged: Partial | None = None
    for part in parts:
        merged = part if merged is None else merged + part
    if merged is None:
        raise ValueError("parts: there are none to merge")
    return merged
