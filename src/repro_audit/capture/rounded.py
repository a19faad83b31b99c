"""Which memory holds values that were rounded to a coarser dtype on their way there."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from repro_audit.capture.storages import Storages, storage_of


class Rounded:
    """Storages, and the coarsest dtype that what they hold has been rounded to."""

    def __init__(self) -> None:
        self._known: Storages[torch.dtype] = Storages()

    def coarsest(self, tensors: Iterable[torch.Tensor]) -> torch.dtype | None:
        """The coarsest that any of the tensors has been rounded to; None where none has."""
        found: torch.dtype | None = None
        for tensor in tensors:
            storage = storage_of(tensor) if self._known else None
            known = None if storage is None else self._known.get(storage._cdata)
            if known is not None:
                found = coarser(found, known[1])
        return found

    def note(self, tensor: torch.Tensor, dtype: torch.dtype | None) -> None:
        """What the tensor holds has been rounded to `dtype`; None: it is what it is to be."""
        storage = storage_of(tensor)
        if storage is None:
            return
        if dtype is None:
            self._known.pop(storage._cdata, None)
        else:
            self._known.note(storage, dtype)


def coarser(one: torch.dtype | None, other: torch.dtype | None) -> torch.dtype | None:
    """That of two dtypes which rounds more; None and dtypes that round nothing are exact."""
    return one if _roundoff(one) > _roundoff(other) else other


def rounds(value: torch.dtype, to: torch.dtype) -> bool:
    """True where numbers of one dtype are rounded when written as another."""
    return _roundoff(to) > _roundoff(value)


def _roundoff(dtype: torch.dtype | None) -> float:
    if dtype is None or not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    # Two numbers in one: of such a dtype torch has no figures, nor is it measured.
    return 0.0 if dtype is torch.float4_e2m1fn_x2 else torch.finfo(dtype).eps
