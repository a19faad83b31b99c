"""Which bytes of a storage were written, by what was written of it piece by piece."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

# A part of up to so many runs is kept as ranges, also where a map has room.
_FEW = 16
# So many runs are gone through one by one, where a map has no room.
_MANY = 1024
# A map is made ranges again where they have so many edges.
_EDGES = 1 << 14
# The largest map, in bytes.
LARGEST_MAP = 1 << 24


class Part(NamedTuple):
    """The bytes of a tensor in its storage: runs of one length, from `begin` on.

    `sizes` and `strides`, in bytes, say where the runs are; there is one if they are empty.
    """

    begin: int
    length: int
    sizes: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def runs(self) -> int:
        """How many runs."""
        return math.prod(self.sizes)

    def end(self) -> int:
        """The end of the last run."""
        if not self.sizes:
            return self.begin + self.length
        last = sum((n - 1) * stride for n, stride in zip(self.sizes, self.strides, strict=True))
        return self.begin + last + self.length

    def begins(self) -> Iterator[int]:
        """Where each run begins."""
        steps = (range(0, n * by, by) for n, by in zip(self.sizes, self.strides, strict=True))
        return (self.begin + sum(offsets) for offsets in itertools.product(*steps))

    def unit(self) -> int:
        """The largest number of bytes that divides where the runs begin and end."""
        return math.gcd(self.begin, self.length, *self.strides)


def part_of(tensor: torch.Tensor, storage: torch.UntypedStorage) -> tuple[Part | None, int]:
    """The bytes of a tensor, None where it has no elements, and those of its storage in number."""
    with torch._C.DisableTorchFunction():
        number, size = tensor.numel(), tensor.element_size()
        nbytes = storage.nbytes()
        if not number:
            return None, nbytes
        begin = int(tensor.storage_offset()) * size
        if tensor.is_contiguous():
            return Part(begin, number * size), nbytes
        length = size
        outer = []
        for stride, n in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
            by = stride * size
            if by <= length:
                # Beside each other or upon each other, as those of `expand` are.
                length += (n - 1) * by
            elif n > 1:
                outer.append((n, by))
    return Part(begin, length, tuple(n for n, _ in outer), tuple(by for _, by in outer)), nbytes


class Written:
    """Which bytes of a storage were written: ranges, or a map where those would be many.

    The edges are begin and end of each range in turn, ascending. A map has one byte, 0 or 1, for
    each unit: so many bytes as all that was written can be divided into; there is none where it
    would be too large, by itself or by what `affords` says of so many bytes more.
    """

    __slots__ = ("_affords", "_by", "_crowd", "_edges", "_first", "_map", "_nbytes", "_unit")

    def __init__(self, nbytes: int, affords: Callable[[int], bool]) -> None:
        self._nbytes = nbytes
        self._affords = affords
        # The threads that wrote some of it.
        self._by: set[int] = set()
        self._edges: list[int] = []
        # From so many edges on a map is looked for.
        self._crowd = _MANY
        self._map: bytearray | None = None
        self._unit = 0
        # The units before this one are written.
        self._first = 0

    @property
    def room(self) -> int:
        """Bytes that the map takes."""
        return 0 if self._map is None else len(self._map)

    def by_me(self) -> bool:
        """Note that the calling thread writes; True if no other one did."""
        self._by.add(threading.get_ident())
        return len(self._by) == 1

    def some_lost(self) -> None:
        """Of what was written some is not any more."""
        self._first = 0

    def add(self, part: Part, nbytes: int) -> None:
        """A part was written, of a storage that has so many bytes by now."""
        self._resize(nbytes)
        if part.end() > nbytes:
            return
        runs = part.runs()
        if (self._map is not None or runs > _FEW) and self._maps(part.unit()):
            self._view(part)[...] = True
        elif runs <= _MANY and self._use_edges():
            for begin in part.begins():
                self._insert(begin, begin + part.length)
            if len(self._edges) > self._crowd and not self._maps(0):
                self._crowd *= 2

    def has(self, part: Part, nbytes: int) -> bool:
        """True if all of a part was written; False also where that cannot be told."""
        self._resize(nbytes)
        end = part.end()
        if end > nbytes:
            return False
        if self._contains(part.begin, end):
            return True
        runs = part.runs()
        if runs > _FEW and self._maps(part.unit()):
            return bool(self._view(part).all())
        length = part.length
        return 1 < runs <= _MANY and all(self._contains(at, at + length) for at in part.begins())

    def elements(
        self, tensor: torch.Tensor, nbytes: int
    ) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Which elements of a tensor were written, to be changed: of its shape, with an axis more.

        None where a map would be too large.
        """
        self._resize(nbytes)
        with torch._C.DisableTorchFunction():
            size = tensor.element_size()
            begin = int(tensor.storage_offset()) * size
            shape, strides = tuple(tensor.shape), tensor.stride()
        unit = math.gcd(size, begin)
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if 0 in shape or begin + (last + 1) * size > nbytes or not self._maps(unit):
            return None
        unit = self._unit
        by = (*(stride * size // unit for stride in strides), 1)
        return np.ndarray((*shape, size // unit), np.bool_, self._map, begin // unit, by)

    def whole(self) -> bool:
        """True if every byte was written."""
        if self._map is None:
            return self._edges == [0, self._nbytes]
        first = self._map.find(0, self._first)
        if first >= 0:
            self._first = first
        return first < 0

    def _insert(self, begin: int, end: int) -> None:
        edges = self._edges
        # An odd place is within a range, or at its end.
        low, high = bisect.bisect_left(edges, begin), bisect.bisect_right(edges, end)
        edges[low:high] = [begin][low % 2 :] + [end][high % 2 :]

    def _contains(self, begin: int, end: int) -> bool:
        if self._map is not None:
            return self._map.find(0, begin // self._unit, -(-end // self._unit)) < 0
        at = bisect.bisect_right(self._edges, begin)
        return at % 2 == 1 and self._edges[at] >= end

    def _view(self, part: Part) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The units of a part in the map."""
        unit = self._unit
        return np.ndarray(
            (*part.sizes, part.length // unit),
            np.bool_,
            self._map,
            part.begin // unit,
            (*(stride // unit for stride in part.strides), 1),
        )

    def _maps(self, unit: int) -> bool:
        """Have a map whose units divide this one; False where it would be too large."""
        if self._map is not None:
            unit, before = math.gcd(unit, self._unit), self._unit
            if unit != before:
                if not self._fits(self._nbytes // unit, self.room):
                    return False
                finer = np.repeat(np.frombuffer(self._map, np.uint8), before // unit)
                self._map = bytearray(finer.tobytes())
                self._first *= before // unit
        else:
            unit = math.gcd(unit, self._nbytes, *self._edges)
            if not self._fits(self._nbytes // unit, 0):
                return False
            self._map = bytearray(self._nbytes // unit)
            self._first = 0
            for begin, end in zip(self._edges[::2], self._edges[1::2], strict=True):
                self._map[begin // unit : end // unit] = b"\1" * ((end - begin) // unit)
            self._edges = []
        self._unit = unit
        return True

    def _fits(self, units: int, before: int) -> bool:
        return units <= LARGEST_MAP and self._affords(units - before)

    def _use_edges(self) -> bool:
        """Have ranges instead of a map; False where they would be too many."""
        if self._map is not None:
            units = np.frombuffer(b"\0" + self._map + b"\0", np.bool_)
            ends = units[1:] != units[:-1]
            if np.count_nonzero(ends) > _EDGES:
                return False
            self._edges = (np.flatnonzero(ends) * self._unit).tolist()
            self._map = None
        return True

    def _resize(self, nbytes: int) -> None:
        """The storage has so many bytes: what was written beyond them is gone."""
        if nbytes != self._nbytes:
            if not self._use_edges():
                self._map, self._edges = None, []
            at = bisect.bisect_left(self._edges, nbytes)
            self._edges[at:] = [nbytes][: at % 2]
            self._nbytes = nbytes
