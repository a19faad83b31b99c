"""Which memory holds values that were rounded to a coarser dtype on their way there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.multiprocessing.reductions import StorageWeakRef

# Freed storages are forgotten when this many have gathered.
_FORGET_EVERY = 1024


class Rounded:
    """Storages, and the coarsest dtype that what they hold has been rounded to."""

    def __init__(self) -> None:
        # As in `UnwrittenMemory`: the weak reference keeps the address from being used again.
        self._known: dict[int, tuple[StorageWeakRef, torch.dtype]] = {}
        self._forget_at = _FORGET_EVERY

    def coarsest(self, tensors: Iterable[torch.Tensor]) -> torch.dtype | None:
        """The coarsest that any of the tensors has been rounded to; None where none has."""
        found: torch.dtype | None = None
        for tensor in tensors:
            storage = _storage(tensor) if self._known else None
            known = None if storage is None else self._known.get(storage._cdata)
            if known is not None:
                found = coarser(found, known[1])
        return found

    def note(self, tensor: torch.Tensor, dtype: torch.dtype | None) -> None:
        """What the tensor holds has been rounded to `dtype`; None: it is what it is to be."""
        storage = _storage(tensor)
        if storage is None:
            return
        if dtype is None:
            self._known.pop(storage._cdata, None)
            return
        self._known[storage._cdata] = StorageWeakRef(storage), dtype  # type: ignore[no-untyped-call]
        if len(self._known) > self._forget_at:
            for key, (reference, _) in list(self._known.items()):
                if reference.expired():  # type: ignore[no-untyped-call]
                    self._known.pop(key, None)
            self._forget_at = len(self._known) + _FORGET_EVERY


def coarser(one: torch.dtype | None, other: torch.dtype | None) -> torch.dtype | None:
    """That of two dtypes which rounds more; None and dtypes that round nothing are exact."""
    return one if _roundoff(one) > _roundoff(other) else other


def rounds(value: torch.dtype, to: torch.dtype) -> bool:
    """True where numbers of one dtype are rounded when written as another."""
    return _roundoff(to) > _roundoff(value)


def _roundoff(dtype: torch.dtype | None) -> float:
    if dtype is None or not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    return torch.finfo(dtype).eps


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None
