"""Copies to the host that their operator does not wait for: read where they come from.

`x.to("cpu", non_blocking=True)` returns memory that a device has yet to write. Its bits will be
those of what is copied, whose digest is begun on the device, in its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit.capture.operators import tensors_in

if TYPE_CHECKING:
    import torch

    from repro_audit.capture.operators import Operator

# Of `copy_` and its like; others take it by name.
_NON_BLOCKING = 2


def sources(operator: Operator, args: Any, kwargs: dict[str, Any] | None) -> list[torch.Tensor]:
    """What a call copies without a wait, in the order of its results; nothing for other calls."""
    assert operator.copied is not None
    named = kwargs is not None and kwargs.get("non_blocking")
    if not (named or (len(args) > _NON_BLOCKING and args[_NON_BLOCKING])):
        return []
    copied = list(tensors_in(args[operator.copied]))
    return [] if all(source.is_cpu for source in copied) else copied


def alike(source: torch.Tensor, copy: torch.Tensor) -> bool:
    """Whether a copy will have its source's bits, in its order."""
    return source.dtype == copy.dtype and source.shape == copy.shape
