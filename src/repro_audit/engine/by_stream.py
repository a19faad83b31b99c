"""An engine of two functions on bytes: the lanes of a range and those of a multiset.

What `repro_audit._engine` does on memory given by address, for an implementation that takes
copies of it: the specification in NumPy, and torch's own operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from repro_audit.engine import reference, reference_ulp

_MASK = (1 << 64) - 1
_Lanes = tuple[int, int]


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


def _box_rows(
    data: bytes, row: int, sizes: Sequence[int], whole: Sequence[int], start: Sequence[int]
) -> Iterator[tuple[bytes, int]]:
    """A box's rows of `row` bytes, each with its first element's place in the whole's stream."""
    for i, index in enumerate(np.ndindex(tuple(sizes[:-1])) if data else ()):
        position = 0
        for at, first, size in zip((*index, 0), start, whole, strict=False):
            position = position * size + first + at
        yield data[i * row : (i + 1) * row], position


class StreamEngine:
    """The engine that `stream_lanes(data, offset, key)` and `multiset_lanes(data, itemsize, key)`
    make. Methods as the functions of `repro_audit._engine`; one thread whatever is asked for.
    """

    def __init__(
        self,
        stream_lanes: Callable[[bytes, int, int], _Lanes],
        multiset_lanes: Callable[[bytes, int, int], _Lanes],
    ) -> None:
        self._stream_lanes = stream_lanes
        self._multiset_lanes = multiset_lanes
        self.finalize = reference.finalize

    def lanes(
        self, address: int, nbytes: int, offset: int, key: int = 0, threads: int = 0, /
    ) -> _Lanes:
        """As `_engine.lanes`."""
        return self._stream_lanes(bytes_at(address, nbytes), offset, key)

    def readable(self, address: int, nbytes: int, /) -> bool:
        """As `_engine.readable`, which it asks: Python has no such question."""
        from repro_audit import _engine

        return _engine.readable(address, nbytes)

    def lanes_box(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        whole: Sequence[int],
        start: Sequence[int],
        key: int = 0,
        threads: int = 0,
        /,
    ) -> _Lanes:
        """As `_engine.lanes_box`: a row at a time, each at its place in the whole's stream."""
        if not len(whole) == len(start) == len(sizes):
            raise ValueError("box: sizes, whole and start differ in length")
        if any(at < 0 or at + n > most for at, n, most in zip(start, sizes, whole, strict=True)):
            raise ValueError("box: it does not lie within the whole")
        data = stream(address, sizes, strides, itemsize)
        row = (sizes[-1] if sizes else 1) * itemsize
        sums = [0, 0]
        for part, position in _box_rows(data, row, sizes, whole, start):
            found = self._stream_lanes(part, position * itemsize, key)
            sums = [sums[0] + found[0], sums[1] + found[1]]
        return sums[0] & _MASK, sums[1] & _MASK

    def digest(
        self, address: int, nbytes: int, tag: int, key: int = 0, threads: int = 0, /
    ) -> bytes:
        """As `_engine.digest`."""
        return self.finalize(*self.lanes(address, nbytes, 0, key), nbytes, tag)

    def digest_strided(
        self,
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
        return self.finalize(*self._stream_lanes(data, 0, key), len(data), tag)

    def multiset(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        key: int = 0,
        threads: int = 0,
        /,
    ) -> _Lanes:
        """As `_engine.multiset`."""
        return self._multiset_lanes(stream(address, sizes, strides, itemsize), itemsize, key)

    def sample(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        count: int,
        /,
    ) -> bytes:
        """As `_engine.sample`."""
        data = stream(address, sizes, strides, itemsize)
        places = reference.sample_indices(count, len(data) // itemsize)
        return b"".join(data[at * itemsize : (at + 1) * itemsize] for at in places)

    def ulp(
        self,
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
        self,
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
            np.moveaxis(a.reshape(shape), dim, 0),
            np.moveaxis(b.reshape(shape), dim, 0),
            strict=True,
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


def of_reference() -> StreamEngine:
    """The specification in NumPy as an engine."""
    return StreamEngine(reference.stream_lanes, reference.multiset_lanes)
