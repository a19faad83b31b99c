"""Which elements of its first argument an operator overwrites, where indices or a mask say so."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from repro_audit.capture.guards import paused
from repro_audit.capture.storages import storage_of
from repro_audit.model.codes import ACCUMULATE

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_MASKS = (torch.bool, torch.uint8)
_INDICES = (torch.int32, torch.int64)


def adds(name: str, args: Any, kwargs: dict[str, Any] | None) -> bool:
    """True if a call reads what it writes: `accumulate`, or a `scatter_` that reduces."""
    base, _, overload = name.removeprefix("aten.").partition(".")
    at = ACCUMULATE.get(base.removesuffix("_"), len(args))
    reduces = "reduce" in overload or bool(kwargs and "reduce" in kwargs)
    return reduces or (at < len(args) and bool(args[at]))


def overwritten(name: str, args: Any) -> Any:
    """An index into an array of the first argument's shape: what a call overwrites of it.

    None where the indices cannot be read. The operator itself complains of those out of bounds.
    """
    base = name.removeprefix("aten.").partition(".")[0]
    try:
        with contextlib.suppress(LookupError):
            return _PLACES[base](*args)
        return ... if _may_be_all(base, *args) else None
    except (LookupError, ValueError):
        return None


def _may_be_all(base: str, tensor: torch.Tensor, *args: Any) -> bool:
    """True if indices that are not to be read, as a device's, are as many as there are elements.

    Nothing may wait for their values; a permutation's inverse is made so, with each index once.
    """
    if base in {"index_copy_", "index_fill_"}:
        return bool(tensor.dim()) and args[1].numel() >= tensor.shape[args[0]]
    if base == "put_":
        return bool(args[0].numel() >= tensor.numel())
    if base == "scatter_":
        return bool(args[1].numel() >= tensor.numel())
    indices = args[0] if base in {"index_put_", "_index_put_impl_"} else [None]
    if any(index is not None and index.dtype in _MASKS for index in indices):
        return False
    named = [index.shape for index in indices if index is not None]
    rest = (n for at, n in enumerate(tensor.shape) if at >= len(indices) or indices[at] is None)
    return bool(named) and math.prod((*np.broadcast_shapes(*named), *rest)) >= tensor.numel()


def _host(value: Any) -> np.ndarray[Any, Any]:
    """The values of a tensor of indices or a mask; raises LookupError where they are not here."""
    here = type(value) in _PLAIN and value.is_cpu and value.layout is torch.strided
    if not here or storage_of(value) is None or value._is_zerotensor():
        raise LookupError
    if value.dtype not in (*_MASKS, *_INDICES):
        raise LookupError
    with paused():
        found: np.ndarray[Any, Any] = value.detach().numpy()
    return found.astype(bool, copy=False) if value.dtype in _MASKS else found


def _indexed(tensor: torch.Tensor, indices: Any, *_: Any) -> Any:
    return tuple(slice(None) if index is None else _host(index) for index in indices)


def _along(tensor: torch.Tensor, dim: int, index: Any, *_: Any) -> Any:
    before = dim % max(tensor.dim(), 1)
    return (*(slice(None),) * before, _host(index).reshape(-1)) if tensor.dim() else ...


def _scattered(tensor: torch.Tensor, dim: int, index: Any, *_: Any) -> Any:
    if not tensor.dim():
        return ...
    values = _host(index)
    grid: list[Any] = list(np.ogrid[tuple(slice(n) for n in values.shape)])
    grid[dim] = values
    return tuple(grid)


def _masked(tensor: torch.Tensor, mask: Any, *_: Any) -> Any:
    return np.broadcast_to(_host(mask), tensor.shape)


def _put(tensor: torch.Tensor, index: Any, *_: Any) -> Any:
    if not tensor.dim():
        return ...
    return np.unravel_index(_host(index) % max(tensor.numel(), 1), tensor.shape)


_PLACES: dict[str, Callable[..., Any]] = {
    "_index_put_impl_": _indexed,
    "index_copy_": _along,
    "index_fill_": _along,
    "index_put_": _indexed,
    "masked_fill_": _masked,
    "masked_scatter_": _masked,
    "put_": _put,
    "scatter_": _scattered,
}
