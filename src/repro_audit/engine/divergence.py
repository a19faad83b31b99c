"""What two tensors differ by, in units in the last place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from repro_audit.engine import choice, devices, views
from repro_audit.engine.tags import FLOATS, ITEMSIZES, PARTS, TAGS
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import ChannelDivergence, UlpDivergence

_SWAPPED = {"less": "greater", "greater": "less"}


def _parts(view: views.View) -> views.View:
    """A complex view as a real one with one more dimension, of 2."""
    return replace(
        view,
        shape=(*view.shape, 2),
        strides=(*(2 * stride for stride in view.strides), 1),
        itemsize=view.itemsize // 2,
        dtype=PARTS[view.dtype],
    )


def _position(index: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if index is None:
        return None
    position: list[int] = []
    for size in reversed(shape):
        index, at = divmod(index, size)
        position.append(at)
    return tuple(reversed(position))


def _swap(found: dict[str, Any]) -> dict[str, Any]:
    """The answer for (b, a) as that for (a, b): all but the sides is symmetric."""
    swapped = {name: found[_SWAPPED.get(name, name)] for name in found}
    for name in ("max_values", "first_values"):
        if swapped[name] is not None:
            swapped[name] = swapped[name][::-1]
    return swapped


def compare(a: Any, b: Any) -> UlpDivergence:
    """What `a` and `b`, tensors or arrays of one shape, differ by, element by element.

    Exact: counts, maxima, sums and indices are integers, the two float figures single float64
    roundings, whatever the host program set for denormals. Complex numbers are compared as two
    parts, integers and bools by their absolute difference. Of two different float dtypes the
    wider is rounded to the narrower (to nearest, ties to even) and counted there; other pairs of
    dtypes are refused.

    Time: that of reading both where they agree; for each differing element and core 0.6 ns with
    AVX-512 (float32, float16, bfloat16), else 5 to 10 ns.
    Raises ValueError for different shapes, UnsupportedTensorError for dtypes that have no common
    distance and for tensors without plain memory, TypeError for what is neither tensor nor array.
    """
    found = devices.ulp(a, b)
    if found is None:
        return _compare(views.of(a), views.of(b))
    figures, indexed = found
    return _divergence(figures, views.dtype_name(a), tuple(a.shape), indexed)


def compare_streams(
    a: bytes | bytearray, b: bytes | bytearray, dtype: str, shape: tuple[int, ...]
) -> UlpDivergence:
    """As `compare`, for two logical row-major streams of one dtype and shape.

    Raises ValueError where a stream's length is not that of its elements.
    """
    numel = math.prod(shape)
    if len(a) != len(b) or (numel and len(a) % numel):
        raise ValueError(f"streams of {len(a)} and {len(b)} bytes do not hold {numel} elements")
    return compare_memory(a, b, (dtype, dtype), shape)


def compare_memory(
    a: bytes | bytearray | memoryview,
    b: bytes | bytearray | memoryview,
    dtypes: tuple[str, str],
    shape: tuple[int, ...],
) -> UlpDivergence:
    """As `compare`, for two logical row-major streams, each of a dtype of its own.

    The lengths are the caller's to check.
    """
    import numpy as np

    strides = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
    sides = []
    for stream, dtype in zip((a, b), dtypes, strict=True):
        memory = np.frombuffer(stream, np.uint8)
        itemsize = ITEMSIZES[dtype]
        sides.append(views.View(memory.ctypes.data, shape, strides, itemsize, dtype, memory))
    return _compare(sides[0], sides[1])


def compare_channels(a: Any, b: Any, dim: int = -1) -> list[ChannelDivergence]:
    """What each channel of `a` and `b` differs by: the elements at each index of dimension `dim`.

    Shows whether one head, row or expert is off. Dtypes and errors as for `compare`; IndexError
    where there is no such dimension. Of a complex tensor both parts belong to the channel. Time:
    that of reading both where they agree, and a few nanoseconds for each differing element.
    """
    sides = _sides(views.of(a), views.of(b))
    rank = len(sides.shape)
    if not -rank <= dim < rank:
        raise IndexError(f"no dimension {dim} in tensors of shape {sides.shape}")
    found = choice.engine().ulp_channels(*sides.arguments, dim % rank)
    return [ChannelDivergence(*channel) for channel in found]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Two views that an engine can compare; `shape` and `dtype` as the user knows them."""

    first: views.View
    second: views.View
    swapped: bool
    shape: tuple[int, ...]
    dtype: str

    @property
    def arguments(
        self,
    ) -> tuple[int, tuple[int, ...], int, tuple[int, ...], tuple[int, ...], int, int]:
        """What an engine's functions take: addresses, strides, sizes, tags."""
        a, b = self.first, self.second
        return (
            a.address,
            a.strides,
            b.address,
            b.strides,
            a.shape,
            TAGS[a.dtype],
            TAGS[b.dtype],
        )


def _sides(view_a: views.View, view_b: views.View) -> _Sides:
    if view_a.shape != view_b.shape:
        raise ValueError(
            f"cannot compare tensors of different shapes: {view_a.shape} and {view_b.shape}"
        )
    shape = view_a.shape
    is_complex = view_a.dtype in PARTS
    names = (view_a.dtype, view_b.dtype)
    if is_complex and view_b.dtype in PARTS:
        view_a, view_b = _parts(view_a), _parts(view_b)
    swapped = False
    if view_a.dtype != view_b.dtype:
        if view_a.dtype not in FLOATS or view_b.dtype not in FLOATS:
            raise UnsupportedTensorError(
                f"{names[0]} and {names[1]} have no common distance. Convert one of them first."
            )
        swapped = FLOATS.index(view_a.dtype) > FLOATS.index(view_b.dtype)
    if view_a.dtype == "float4_e2m1fn_x2":
        raise UnsupportedTensorError(
            "float4_e2m1fn_x2 packs two numbers in a byte, which have no distance of their own "
            "here. Compare `t.view(torch.uint8)` for equality, or unpack first."
        )
    first, second = (view_b, view_a) if swapped else (view_a, view_b)
    return _Sides(first, second, swapped, shape, names[0] if swapped else names[1])


def _compare(view_a: views.View, view_b: views.View) -> UlpDivergence:
    sides = _sides(view_a, view_b)
    found = choice.engine().ulp(*sides.arguments)
    if sides.swapped:
        found = _swap(found)
    return _divergence(found, sides.dtype, sides.shape, sides.first.shape)


def _divergence(
    found: dict[str, Any], dtype: str, shape: tuple[int, ...], indexed: tuple[int, ...]
) -> UlpDivergence:
    """An engine's answer, its indices as positions in the shape `indexed`."""
    found["max_index"] = _position(found["max_index"], indexed)
    found["first_index"] = _position(found["first_index"], indexed)
    return UlpDivergence(dtype=dtype, shape=shape, **found)
