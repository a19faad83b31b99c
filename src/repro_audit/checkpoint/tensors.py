"""Tensors and arrays as pickles say them, as views of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repro_audit.checkpoint.memory import Span
from repro_audit.checkpoint.pickled import Made, Named
from repro_audit.engine import TAGS, View, array_view, raw_array
from repro_audit.errors import CheckpointError, UnsupportedTensorError

# By the name of the class of a storage; its elements' dtype.
_STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexHalfStorage": "complex32",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# As torch names its dtypes, next to the names that are the digest's.
_DTYPES = {"half": "float16", "float": "float32", "double": "float64", "long": "int64"}
_MULTIARRAY = ("numpy._core.multiarray", "numpy.core.multiarray")
_NUMERIC = ("numpy._core.numeric", "numpy.core.numeric")


def dtype_of_storage(kind: Any) -> str:
    """The dtype of a storage's elements; of other kinds than numbers (quantized) the bytes'."""
    return _STORAGES.get(kind.name if isinstance(kind, Named) else "", "uint8")


def rebuilt(version: str, args: tuple[Any, ...], span: Span, dtype: str) -> View:
    """The tensor that one of torch's functions would make of a storage and `args`."""
    if version == "_rebuild_tensor_v3":
        # It names the dtype, and has a storage of bytes.
        dtype = dtype_named(args[6])
    view = span.view(dtype, sizes_of(args[2]), sizes_of(args[3]), args[1])
    flags = args[-1] if isinstance(args[-1], Mapping) else {}
    conjugate, negative = bool(flags.get("conj")), bool(flags.get("neg"))
    if not (conjugate or negative):
        return view
    if view.nbytes > span.nbytes:
        raise CheckpointError(f"a view of {dtype} expanded to {view.nbytes:,} bytes. Save a copy.")
    try:
        shown = raw_array(view).view(dtype)
    except TypeError as error:
        raise CheckpointError(
            f"a conjugate or negative view of {dtype}, which is not read. Save a copy of it."
        ) from error
    shown = np.conj(shown) if conjugate else shown
    return array_view(np.negative(shown) if negative else np.array(shown))


def sizes_of(x: Any) -> tuple[int, ...]:
    """A shape or strides; raises CheckpointError for anything else."""
    if isinstance(x, Made) and len(x.args) == 1:
        (x,) = x.args
    if not isinstance(x, tuple | list) or not all(type(n) is int for n in x):
        raise CheckpointError("a tensor whose shape is none. Save it anew.")
    return tuple(x)


def dtype_named(x: Any) -> str:
    """The canonical name of one of torch's dtypes; raises CheckpointError where it has none."""
    name = x.name if isinstance(x, Named) else ""
    name = _DTYPES.get(name, name)
    if name not in TAGS:
        said = str(x)[:100] if isinstance(x, Named) else "no name"
        raise CheckpointError(f"a tensor of dtype {said}, which has no digest. Save it in another.")
    return name


def array_of(made_by: Named, args: tuple[Any, ...], state: Any) -> View | None:
    """A NumPy array or number; None for anything else, and where its elements are no numbers."""
    fortran: Any = False
    axes: Any = None
    if made_by.module in _MULTIARRAY and made_by.name == "scalar" and len(args) == 2:
        shape: Any = ()
        kind, data = args
    elif made_by.module in _NUMERIC and made_by.name == "_frombuffer" and len(args) in {4, 5}:
        data, kind, shape, order = args[:4]
        fortran = order == "F"
        axes = args[4] if order == "K" and len(args) == 5 else None
    elif made_by.module in _MULTIARRAY and made_by.name == "_reconstruct":
        if not isinstance(state, tuple) or len(state) != 5:
            return None
        _, shape, kind, fortran, data = state
    else:
        return None
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, Made) or not kind.args:
        return None
    code, told = str(kind.args[0]), kind.state
    if code[:1] not in "biufc":
        return None
    big = isinstance(told, tuple) and len(told) > 1 and told[1] == ">"
    try:
        dtype = np.dtype(code).newbyteorder(">" if big else "=")
        held = np.ndarray(sizes_of(shape), dtype, bytes(data), order="F" if fortran else "C")
        return array_view(held if axes is None else held.transpose(sizes_of(axes)))
    except (TypeError, ValueError, UnsupportedTensorError):
        return None
