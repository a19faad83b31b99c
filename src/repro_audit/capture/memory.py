"""Memory that `torch.empty` and kin hand out: who reads it before it is wholly written?"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator

# Finite and huge in float32, float64 and bfloat16, NaN in float16: a read of it cannot pass for a
# result, and it is not the zeros that fresh pages hold.
_POISON = 0x7F


class UnwrittenMemory:
    """Storages made by `empty*` and not yet overwritten in full, by address.

    Partial writes leave a storage unwritten, so a reader of its written half is marked too: the
    mark is evidence beside a divergence, never a finding of its own. With `poison` the memory is
    filled on creation, so that a program that reads it gives another result.
    """

    def __init__(self, *, poison: bool) -> None:
        self.unwritten: dict[int, int] = {}
        self._poison = poison

    def made(self, result: Any) -> None:
        """Note the storages an `empty*` operator returned."""
        if type(result) is not torch.Tensor or result.device.type != "cpu":
            return
        if result.layout is not torch.strided or result.is_quantized:
            return
        storage = result.untyped_storage()
        address, nbytes = storage.data_ptr(), storage.nbytes()
        if not address or not nbytes:
            return
        self.unwritten[address] = nbytes
        if self._poison:
            ctypes.memset(address, _POISON, nbytes)

    def read_by(self, operator: Operator, args: Any, kwargs: Any) -> bool:
        """True if the operator reads such memory; operators that only overwrite it do not."""
        if operator.outside or (operator.returns == () and not operator.writes):
            return False
        written = {at for at, _ in operator.writes} if operator.fills else ()
        for at, value in enumerate(args):
            if at not in written and self._holds(value):
                return True
        return bool(kwargs) and any(self._holds(value) for value in kwargs.values())

    def wrote(self, tensor: torch.Tensor) -> None:
        """Note that a tensor was produced or written: if it covers its storage, all is written."""
        address = tensor.untyped_storage().data_ptr()
        nbytes = self.unwritten.get(address)
        if nbytes is not None and tensor.numel() * tensor.element_size() >= nbytes:
            del self.unwritten[address]

    def _holds(self, value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return (
                value.layout is torch.strided
                and value.device.type == "cpu"
                and value.untyped_storage().data_ptr() in self.unwritten
            )
        return isinstance(value, list | tuple) and any(self._holds(item) for item in value)
