"""How the extension modules come by torch's table of C functions for DLPack."""

from __future__ import annotations

from typing import Any


def exchange(module: Any) -> None:
    """Give `_engine`, or a module of kernels, the table; without one it answers None for every
    tensor, and tensors are asked in Python. torch has it since 2.11.
    """
    import torch

    table = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if table is not None:
        module.exchange(table, torch.Tensor, torch.nn.Parameter, torch.UntypedStorage)
