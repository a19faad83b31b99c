"""What torch composes otherwise while a mode is on, given back the way it has without one."""

from __future__ import annotations

from typing import Any

import torch

from repro_audit.capture.guards import paused, unseen_by_dynamo
from repro_audit.capture.replaced import Replaced

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# Whether a library would compute it.
_LIBRARIES = ("_use_cudnn_ctc_loss", "_use_miopen_ctc_loss")


class Composites:
    """Stands in for functions that would fail where a mode is on and do not without one.

    Under any mode `torch.ctc_loss` leaves lengths in the tensors that they came in, and divides a
    device's losses by the host's lengths.
    """

    def __init__(self) -> None:
        self._replaced = Replaced()

    def install(self) -> None:
        """Wrap them."""
        self._replaced.wrap(torch, "ctc_loss", _ctc_loss)

    def uninstall(self) -> None:
        """Give them back."""
        self._replaced.give_back()


def _ctc_loss(original: Any) -> Any:
    def observed(
        log_probs: Any,
        targets: Any,
        input_lengths: Any,
        target_lengths: Any,
        blank: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        given = (log_probs, targets, input_lengths, target_lengths)
        if not torch.compiler.is_compiling() and _as_numbers(given, blank):
            with paused():
                lengths = [input_lengths.tolist(), target_lengths.tolist()]
            given = (log_probs, targets, *lengths)
        return original(*given, blank, *args, **kwargs)

    unseen_by_dynamo(observed)
    return observed


def _as_numbers(given: tuple[Any, ...], blank: int) -> bool:
    """Whether torch would read the lengths: of plain tensors, unless a library takes them as is."""
    if any(type(tensor) not in _PLAIN for tensor in given):
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if not given[0].is_cuda:
        return True
    with paused():
        return not any(
            getattr(torch, name)(*given, blank) for name in _LIBRARIES if hasattr(torch, name)
        )
