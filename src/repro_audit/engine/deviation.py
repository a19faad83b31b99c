"""How far two tensors, or samples of them, are apart: in ULP, and against the size of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from repro_audit.engine import reference_ulp
from repro_audit.engine.divergence import compare_memory
from repro_audit.engine.tags import ITEMSIZES, PARTS, TAGS
from repro_audit.engine.views import View, raw_array
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import Deviation

_F64 = npt.NDArray[np.float64]
# Elements.
_PIECE = 1 << 16
_NUMPY = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bool": "?"}


def deviation(
    a: bytes | memoryview, b: bytes | memoryview, dtypes: tuple[str, str], numel: int
) -> Deviation | None:
    """What two streams of elements, of tensors of `numel`, are apart; `dtypes` are their own.

    They may be the whole or samples taken alike. `rms` is ‖a-b‖ / max(‖a‖, ‖b‖) in float64 over the
    pairs of which both are finite: unlike a count of ULP it does not grow where an element happens
    to be near zero. None where the two have no common distance: other dtypes than numbers, or as
    many elements not. Some 30 µs for 512 elements.
    """
    if any(dtype not in ITEMSIZES for dtype in dtypes):
        return None
    counts = [len(s) // ITEMSIZES[dtype] for s, dtype in zip((a, b), dtypes, strict=True)]
    if counts[0] != counts[1]:
        return None
    try:
        found = compare_memory(a, b, dtypes, (counts[0],))
    except UnsupportedTensorError:
        return None
    # What rounds to the same in the narrower dtype is apart all the same.
    apart = found.differing or dtypes[0] != dtypes[1]
    ordered = found.less + found.greater
    return Deviation(
        numel=numel,
        compared=counts[0],
        differing=found.differing,
        unordered=found.unordered,
        max_ulp=found.max_ulp,
        mean_ulp=found.mean_ulp,
        max_relative=found.max_relative,
        rms=_rms(values(a, dtypes[0]), values(b, dtypes[1])) if apart else 0.0,
        bias=(found.greater - found.less) / ordered if ordered else 0.0,
    )


def values(data: bytes | memoryview, dtype: str) -> _F64:
    """The numbers of a stream in float64, a complex one as two; exact but for 64-bit integers."""
    dtype = PARTS.get(dtype, dtype)
    if dtype in _NUMPY:
        return np.frombuffer(data, _NUMPY[dtype]).astype(np.float64)
    if dtype == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64)
    if dtype.startswith("float"):
        form = reference_ulp.format_of(TAGS[dtype])
        return reference_ulp.values(np.frombuffer(data, form.bits), form)
    return np.frombuffer(data, np.dtype(dtype)).astype(np.float64)


def _rms(a: _F64, b: _F64) -> float:
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        a, b = a[finite], b[finite]
    # By the largest, or squares of what is near the ends of the range are 0 or infinite.
    largest = float(max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0)))
    if largest == 0.0:
        return 0.0
    return _relative(*_squares(a / largest, b / largest))


def relative_rms(a: View, b: View) -> float | None:
    """‖a-b‖ / max(‖a‖, ‖b‖) of two tensors of one shape, over the pairs of which both are finite.

    None where a dtype's elements are no numbers. In pieces of 64 Ki elements, some 10 ns each.
    """
    if any(view.dtype.startswith("float4") for view in (a, b)):
        return None
    streams = [np.ascontiguousarray(raw_array(view)).reshape(-1) for view in (a, b)]

    def pieces() -> Iterator[tuple[_F64, _F64]]:
        for begin in range(0, len(streams[0]), _PIECE):
            one, other = (stream[begin : begin + _PIECE].data.cast("B") for stream in streams)
            yield values(one, a.dtype), values(other, b.dtype)

    scale = 1.0
    # The squares of all other dtypes' numbers are within float64's range.
    if {a.dtype, b.dtype} & {"float64", "complex128"}:
        finite = (side[np.isfinite(side)] for pair in pieces() for side in pair)
        scale = max((float(np.abs(side).max(initial=0.0)) for side in finite), default=0.0) or 1.0
    sums = np.zeros(3)
    for one, other in pieces():
        x, y = (one, other) if scale == 1.0 else (one / scale, other / scale)
        with np.errstate(invalid="ignore"):
            found = _squares(x, y)
        if not np.isfinite(found).all():
            finite_pairs = np.isfinite(x) & np.isfinite(y)
            found = _squares(x[finite_pairs], y[finite_pairs])
        sums += found
    return _relative(*sums)


def _squares(a: _F64, b: _F64) -> tuple[float, float, float]:
    """‖a-b‖², ‖a‖² and ‖b‖²."""
    return _square(a - b), _square(a), _square(b)


def _square(x: _F64) -> float:
    # Not BLAS's dot product: its sum depends on how many threads it takes, and they wait for each
    # other where the machine is busy.
    return float(np.einsum("i,i->", x, x))


def _relative(apart: float, of_a: float, of_b: float) -> float:
    size = math.sqrt(max(of_a, of_b))
    return math.sqrt(apart) / size if size else 0.0
