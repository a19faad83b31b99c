"""What is known of storages for as long as they are there."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef

_Known = TypeVar("_Known")

# Freed storages are forgotten when this many have gathered.
_FORGET_EVERY = 1024


class Storages(dict[int, tuple[StorageWeakRef, _Known]]):
    """By the address of torch's record of a storage, its `_cdata`.

    The weak reference keeps that record, so that its address, unlike the memory's, is not used
    again while the entry is here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget_at = _FORGET_EVERY

    def note(self, storage: torch.UntypedStorage, known: _Known) -> None:
        """Know this of a storage."""
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self[reference.cdata] = reference, known
        if len(self) > self._forget_at:
            self.forget()

    def forget(self) -> None:
        """Forget those that were freed."""
        for key, (other, _) in list(self.items()):
            if other.expired():  # type: ignore[no-untyped-call]
                self.pop(key, None)
        self._forget_at = len(self) + _FORGET_EVERY


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """A tensor's storage; None for sparse, nested and wrapped ones, which have none."""
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None
