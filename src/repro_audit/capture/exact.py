"""The result of a call in float64: what its results, rounded one way or another, stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch._decomp import decomposition_table

from repro_audit.capture.operators import Operator, tensors_in

_WIDER = {torch.complex64: torch.complex128, torch.complex32: torch.complex128}
_WIDEST = {torch.float64, torch.complex128}
# Gives back, beside its result, which elements it kept.
DROPOUT = "aten.native_dropout.default"


class Made(Protocol):
    """A call that can be made: `make` gives its arguments, positional and by name."""

    @property
    def name(self) -> str:
        """The operator's name."""

    @property
    def operator(self) -> Operator:
        """How it is recorded."""

    @property
    def function(self) -> Any:
        """What is called."""

    @property
    def make(self) -> Callable[[], tuple[Any, dict[str, Any]]]:
        """Gives the arguments."""


def exact(kept: Made, output: int, result: list[torch.Tensor]) -> tuple[torch.Tensor | None, str]:
    """Output number `output` of a call in float64, or None and why there is none.

    As `exact_outputs`; what is drawn is taken from `result`, one of the call's results.
    """
    dtype = result[output].dtype
    if _wide(dtype) == dtype:
        return None, f"it is {str(dtype).removeprefix('torch.')}, and nothing wider is at hand"
    if kept.name == DROPOUT:
        if output != 0:
            return None, "it is drawn"
        (value, probability, *_), _ = kept.make()
        return dropped(value.double(), result[1].to(value.device), probability), ""
    found, reason = exact_outputs(kept)
    return found.get(output), "" if output in found else reason


def exact_outputs(kept: Made) -> tuple[dict[int, torch.Tensor], str]:
    """The outputs of a call in float64 (complex128), by number, and why others are not there.

    All arguments are copied as float64, as is a dtype that the call asks for. By the operator's own
    kernel where it has one for float64, else by torch's decomposition.
    """
    if kept.operator.random:
        return {}, "it draws random numbers"
    args, kwargs = kept.make()
    if _shared(args, kwargs, kept):
        return {}, "it writes to memory that another argument lies in"
    reason = ""
    decomposed = decomposition_table.get(kept.function)
    for function in (kept.function, decomposed):
        if function is None:
            continue
        args, kwargs = kept.make()
        wide, named = _widened(args), _widened(kwargs)
        try:
            with torch.no_grad():
                given = function(*wide, **named)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            reason = reason or str(error).partition("\n")[0]
            continue
        outputs = [made[0] for made in kept.operator.outputs(wide, named, given)]
        found = {at: tensor for at, tensor in enumerate(outputs) if tensor.dtype in _WIDEST}
        reason = reason or "it computes in another precision whatever it is given"
        if found:
            return found, reason
    return {}, reason


def dropped(values: torch.Tensor, mask: torch.Tensor, probability: float) -> torch.Tensor:
    """What a dropout of `probability` returns that keeps what `mask` has, as wide as `values`."""
    return values * mask * (0.0 if probability == 1 else 1 / (1 - probability))


def _shared(args: Any, kwargs: Any, kept: Made) -> bool:
    """True if what the call writes lies in the memory of another argument."""
    written = [made[0] for made in kept.operator.outputs(args, kwargs, [None] * 8)]
    storages = [tensor.untyped_storage()._cdata for tensor in tensors_in([args, kwargs])]
    return any(storages.count(tensor.untyped_storage()._cdata) > 1 for tensor in written)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else _WIDER.get(dtype, dtype)


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(_wide(value.dtype), copy=True)
    if isinstance(value, torch.dtype):
        return _wide(value)
    if isinstance(value, list | tuple):
        return [_widened(item) for item in value]
    if isinstance(value, dict):
        return {name: _widened(item) for name, item in value.items()}
    return value
