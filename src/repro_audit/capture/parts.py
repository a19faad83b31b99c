"""Tensors without memory of their own: what they are made of, and a digest over that."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch._C import _functorch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from torch import Tensor

# Dtype and shape of a part.
Form = tuple[torch.dtype, tuple[int, ...]]
_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_COMPRESSED_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def has_bits(tensor: Tensor) -> bool:
    """False for meta and fake tensors, which stand for a shape alone."""
    return not tensor.is_meta and not isinstance(tensor, torch._subclasses.FakeTensor)


def combined(layout: torch.layout, forms: list[Form], digests: list[bytes]) -> bytes:
    """16 bytes for a tensor without memory of its own, from its parts' dtypes, shapes, digests."""
    if len(digests) == 1:
        return digests[0]
    state = hashlib.blake2b(str(layout).encode(), digest_size=16)
    for (dtype, shape), digest in zip(forms, digests, strict=True):
        state.update(f"{dtype} {shape}".encode())
        state.update(digest)
    return state.digest()


def of(tensor: Tensor) -> list[Tensor] | None:
    """What a tensor without memory of its own is made of; None for any other.

    To be called where neither modes nor subclasses of the program are reached.
    """
    if _functorch.is_functorch_wrapped_tensor(tensor):
        return [_functorch.get_unwrapped(tensor)]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in _COMPRESSED_ROWS:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in _COMPRESSED_COLUMNS:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_nested and tensor.layout is torch.strided:
        offsets = tensor._nested_tensor_storage_offsets()
        shapes = [tensor._nested_tensor_size(), tensor._nested_tensor_strides()]
        return [tensor.values(), offsets, *shapes]
    # torch's own, as jagged and distributed tensors are: a program's own methods are not to run.
    if type(tensor).__module__.startswith("torch.") and is_traceable_wrapper_subclass(tensor):
        held = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        # A mesh of devices is among what a distributed tensor names.
        return [part for part in held if isinstance(part, torch.Tensor)] or None
    return None
