"""From what a pickle says to the tensors and values in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from repro_audit.checkpoint.contents import Held, Value, value_of
from repro_audit.checkpoint.memory import Span
from repro_audit.checkpoint.pickled import Made, Named, Outside
from repro_audit.engine import TAGS, View, array_view, raw_array
from repro_audit.errors import CheckpointError, UnsupportedTensorError

_REBUILDERS = "torch._utils"
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
# What a module keeps, in the order of its state dict.
_MODULE = ("_parameters", "_buffers", "_modules")
# Nested a hundred times into itself, a pickle of a kilobyte has more leaves than there are atoms.
_MOST = 10_000_000


class Leaves:
    """Finds the tensors and values in what a pickle says, by their dotted paths.

    `stored` brings the memory of a storage by its key.
    """

    def __init__(self, stored: Callable[[str], Span]) -> None:
        self.tensors: dict[str, Held] = {}
        self.values: dict[str, Value] = {}
        self._stored = stored
        self._within: set[int] = set()
        self._met = 0

    def take(self, x: Any, path: str = "") -> None:
        """Find what is in `x`, at `path`."""
        self._met += 1
        if self._met > _MOST:
            raise CheckpointError(f"more than {_MOST:,} values. It is damaged, or no checkpoint.")
        if id(x) in self._within:
            self.values[path] = "itself"
            return
        view = self._tensor(x)
        if view is not None:
            self.tensors[path] = Held.of(view)
            return
        nested = isinstance(x, Mapping | list | tuple | Made)
        if not nested:
            self._plain(x, path)
            return
        self._within.add(id(x))
        for name, item in self._items(x, path):
            self.take(item, f"{path}.{name}" if path and name else path or name)
        self._within.discard(id(x))

    def _plain(self, x: Any, path: str) -> None:
        if isinstance(x, Outside):
            span, _ = self._storage(x)
            self.tensors[path] = Held.of(span.view("uint8", (span.nbytes,)))
        elif isinstance(x, set | frozenset):
            self.values[path] = ", ".join(sorted(str(value_of(item)) for item in x))
        else:
            self.values[path] = value_of(x)

    def _items(self, x: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(x, Mapping):
            yield from ((str(name), item) for name, item in x.items())
        elif isinstance(x, list | tuple):
            yield from ((str(i), item) for i, item in enumerate(x))
        elif _is(x, _REBUILDERS, "_rebuild_parameter", "_rebuild_parameter_with_state"):
            yield "", x.args[0]
        elif _is(x, "torch._tensor", "_rebuild_from_type_v2"):
            yield "", Made(x.args[0], tuple(x.args[2]))
        elif _is(x, "torch", "Size") and len(x.args) == 1:
            yield "", x.args[0]
        elif isinstance(x.state, Mapping) and all(name in x.state for name in _MODULE):
            yield from self._module(x.state)
        else:
            # An object of any class: which, and what it was made of.
            self.values[path] = value_of(x.made_by)
            yield from self._items(x.args, path)
            if isinstance(x.state, Mapping | list | tuple):
                yield from self._items(x.state, path)
            elif x.state is not None:
                yield "state", x.state
            yield from self._items(x.items, path)
            yield from self._items(x.entries, path)

    def _module(self, state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """A module that was saved whole: what its state dict has, by its names there."""
        passing = state.get("_non_persistent_buffers_set") or ()
        for kind in _MODULE:
            for name, item in state[kind].items():
                if item is not None and not (kind == "_buffers" and name in passing):
                    yield str(name), item

    def _tensor(self, x: Any) -> View | None:
        """The tensor or array that `x` says; None where it says none."""
        if not isinstance(x, Made):
            return None
        if _is(x, _REBUILDERS, "_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3"):
            return self._rebuilt(x)
        if _is(x, "numpy._core.multiarray", "_reconstruct", "scalar") or _is(
            x, "numpy.core.multiarray", "_reconstruct", "scalar"
        ):
            return _array(x)
        return None

    def _rebuilt(self, x: Made) -> View:
        storage, offset, shape, strides = x.args[:4]
        span, dtype = self._storage(storage)
        # Version 3 names the dtype, and has a storage of bytes.
        if _is(x, _REBUILDERS, "_rebuild_tensor_v3"):
            dtype = dtype_named(x.args[6])
        view = span.view(dtype, sizes_of(shape), sizes_of(strides), offset)
        flags = x.args[-1] if isinstance(x.args[-1], Mapping) else {}
        return _resolved(view, flags) if flags.get("conj") or flags.get("neg") else view

    def _storage(self, x: Any) -> tuple[Span, str]:
        if not isinstance(x, Outside) or not isinstance(x.key, tuple) or len(x.key) < 3:
            raise CheckpointError("a tensor without a storage. Save it anew.")
        _, kind, key = x.key[:3]
        name = kind.name if isinstance(kind, Named) else ""
        # Of other kinds, such as those of quantized numbers, the bytes are what there is.
        return self._stored(str(key)), _STORAGES.get(name, "uint8")


def _is(x: Any, module: str, *names: str) -> bool:
    made_by = x.made_by
    return isinstance(made_by, Named) and made_by.module == module and made_by.name in names


def sizes_of(x: Any) -> tuple[int, ...]:
    """A shape or strides; raises CheckpointError for anything else."""
    if isinstance(x, Made):
        (x,) = x.args
    if not isinstance(x, tuple | list) or not all(type(n) is int for n in x):
        raise CheckpointError("a tensor whose shape is none. Save it anew.")
    return tuple(x)


def dtype_named(x: Any) -> str:
    """The canonical name of one of torch's dtypes; raises CheckpointError where it has none."""
    name = x.name if isinstance(x, Named) else ""
    name = _DTYPES.get(name, name)
    if name not in TAGS:
        raise CheckpointError(f"a tensor of dtype {x}, which has no digest. Save it in another.")
    return name


def _resolved(view: View, flags: Mapping[str, Any]) -> View:
    """What a conjugate or negative view shows, in memory of its own."""
    try:
        shown = raw_array(view).view(view.dtype)
    except TypeError as error:
        raise CheckpointError(f"a conjugate view of {view.dtype}. Save a copy of it.") from error
    shown = np.conj(shown) if flags.get("conj") else shown
    return array_view(np.negative(shown) if flags.get("neg") else np.array(shown))


def _array(x: Made) -> View | None:
    """A NumPy array or number; None where its elements are objects."""
    if _is(x, "numpy._core.multiarray", "scalar") or _is(x, "numpy.core.multiarray", "scalar"):
        shape: Any = ()
        fortran, (kind, data) = False, x.args[:2]
    else:
        if not isinstance(x.state, tuple) or len(x.state) != 5:
            return None
        _, shape, kind, fortran, data = x.state
    if not isinstance(data, bytes) or not isinstance(kind, Made) or not kind.args:
        return None
    big = isinstance(kind.state, tuple) and kind.state[1] == ">"
    code = str(kind.args[0])
    if code[:1] not in "biufc":
        return None
    try:
        dtype = np.dtype(code).newbyteorder(">" if big else "=")
        held = np.ndarray(sizes_of(shape), dtype, data, order="F" if fortran else "C")
        return array_view(held)
    except (TypeError, ValueError, UnsupportedTensorError):
        return None
