"""A tensor without memory of its own, as a program's own quantization has it."""

from __future__ import annotations

from typing import Any

import torch


class Wrapping(torch.Tensor):
    """Of a size, and without memory of its own."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapping:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls(func(*(a.inner if isinstance(a, cls) else a for a in args), **(kwargs or {})))
