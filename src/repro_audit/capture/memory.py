"""Memory that `torch.empty` and kin hand out: who reads it before it is wholly written?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture.storages import Storages, storage_of

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator


class UnwrittenMemory:
    """Storages made by `empty*` and not yet overwritten in full.

    Partial writes leave a storage unwritten, so a reader of its written half is marked too: the
    mark is evidence beside a divergence, never a finding of its own. With `poison`, a byte, the
    memory is filled on creation, so that a program that reads it gives another result.
    """

    def __init__(self, *, poison: int | None) -> None:
        self.unwritten: Storages[None] = Storages()
        self._poison = poison
        self._noise: Storages[None] = Storages()

    def poisoned(self, result: Any) -> None:
        """Fill what an `empty*` operator returned, where that is asked for, and note nothing."""
        if self._poison is not None and type(result) is torch.Tensor and not result.is_meta:
            storage = storage_of(result)
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
        self.unwritten.note(storage, None)
        return storage

    def noise(self, tensors: Iterable[Any]) -> None:
        """Note scratch that an operator leaves for its backward: no input to compare runs by."""
        for tensor in tensors:
            storage = storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
            if storage is not None:
                self._noise.note(storage, None)

    def is_noise(self, tensor: torch.Tensor) -> bool:
        """True if a tensor is such scratch."""
        storage = storage_of(tensor) if self._noise else None
        return storage is not None and storage._cdata in self._noise

    def read_by(self, operator: Operator, args: Any, kwargs: Any) -> bool:
        """True if the operator reads such memory; operators that only overwrite it do not."""
        if operator.outside or (operator.returns == () and not operator.writes):
            return False
        positional, named = operator.read(args, kwargs)
        return self.holds(positional) or any(self.holds(value) for value in named.values())

    def wrote(self, tensor: torch.Tensor) -> None:
        """Note that a tensor was produced or written: if it covers its storage, all is written."""
        storage = storage_of(tensor)
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
            storage = storage_of(value)
            return storage is not None and storage._cdata in self.unwritten
        return isinstance(value, list | tuple) and any(self.holds(item) for item in value)


def traced() -> bool:
    """True while make_fx traces: `linearize` then computes with memory that nobody wrote."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _fill(storage: torch.UntypedStorage, byte: int) -> None:
    """Fill a storage with a byte; not where that would become part of a captured graph."""
    if storage.device.type == "cuda" and engine.capturing():
        return
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch(), torch.no_grad():
        memory = torch.empty(0, dtype=torch.uint8, device=storage.device)
        memory.set_(storage).fill_(byte)
