"""Memory that `torch.empty` and kin hand out: who reads it before it is wholly written?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator

# Freed storages are forgotten when this many have gathered.
_FORGET_EVERY = 1024


class UnwrittenMemory:
    """Storages made by `empty*` and not yet overwritten in full.

    Partial writes leave a storage unwritten, so a reader of its written half is marked too: the
    mark is evidence beside a divergence, never a finding of its own. With `poison`, a byte, the
    memory is filled on creation, so that a program that reads it gives another result.
    """

    def __init__(self, *, poison: int | None) -> None:
        # By the address of torch's record of the storage: the weak reference keeps that record, so
        # its address, unlike the memory's, is not used again while the entry is here.
        self.unwritten: dict[int, StorageWeakRef] = {}
        self._forget_at = _FORGET_EVERY
        self._poison = poison
        self._noise: dict[int, StorageWeakRef] = {}

    def poisoned(self, result: Any) -> None:
        """Fill what an `empty*` operator returned, where that is asked for, and note nothing."""
        if self._poison is not None and type(result) is torch.Tensor and not result.is_meta:
            storage = _storage(result)
            if storage is not None and storage.nbytes() and result.layout is torch.strided:
                _fill(storage, self._poison)

    def made(self, result: Any) -> None:
        """Note the storage an `empty*` operator returned."""
        storage = self.note(result)
        if storage is not None and self._poison is not None:
            _fill(storage, self._poison)

    def note(self, tensor: Any) -> torch.UntypedStorage | None:
        """Count a tensor's storage as unwritten; returns it, if it has one of its own."""
        if type(tensor) is not torch.Tensor or tensor.is_meta:
            return None
        if tensor.layout is not torch.strided or tensor.is_quantized:
            return None
        storage = tensor.untyped_storage()
        if not storage.data_ptr() or not storage.nbytes():
            return None
        self._remember(storage, self.unwritten)
        return storage

    def noise(self, tensors: Iterable[Any]) -> None:
        """Note scratch that an operator leaves for its backward: no input to compare runs by."""
        for tensor in tensors:
            storage = _storage(tensor) if isinstance(tensor, torch.Tensor) else None
            if storage is not None:
                self._remember(storage, self._noise)

    def is_noise(self, tensor: torch.Tensor) -> bool:
        """True if a tensor is such scratch."""
        storage = _storage(tensor) if self._noise else None
        return storage is not None and storage._cdata in self._noise

    def _remember(self, storage: torch.UntypedStorage, known: dict[int, StorageWeakRef]) -> None:
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        known[reference.cdata] = reference
        if len(known) > self._forget_at:
            for key, other in list(known.items()):
                if other.expired():  # type: ignore[no-untyped-call]
                    known.pop(key, None)
            self._forget_at = len(known) + _FORGET_EVERY

    def read_by(self, operator: Operator, args: Any, kwargs: Any) -> bool:
        """True if the operator reads such memory; operators that only overwrite it do not."""
        if operator.outside or (operator.returns == () and not operator.writes):
            return False
        positional, named = operator.read(args, kwargs)
        return self.holds(positional) or any(self.holds(value) for value in named.values())

    def wrote(self, tensor: torch.Tensor) -> None:
        """Note that a tensor was produced or written: if it covers its storage, all is written."""
        storage = _storage(tensor)
        if (
            storage is not None
            and storage._cdata in self.unwritten
            and tensor.numel() * tensor.element_size() >= storage.nbytes()
        ):
            # Another thread may have been as fast.
            self.unwritten.pop(storage._cdata, None)

    def holds(self, value: Any) -> bool:
        """True if a tensor, or one in a list, has memory that was not wholly written."""
        if isinstance(value, torch.Tensor):
            storage = _storage(value)
            return storage is not None and storage._cdata in self.unwritten
        return isinstance(value, list | tuple) and any(self.holds(item) for item in value)


def traced() -> bool:
    """True while make_fx traces: `linearize` then computes with memory that nobody wrote."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """A tensor's storage; None for sparse, nested and wrapped ones, which have none."""
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None


def _fill(storage: torch.UntypedStorage, byte: int) -> None:
    """Fill a storage with a byte; not where that would become part of a captured graph."""
    if storage.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch(), torch.no_grad():
        memory = torch.empty(0, dtype=torch.uint8, device=storage.device)
        memory.set_(storage).fill_(byte)
