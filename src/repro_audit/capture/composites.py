"""What torch composes otherwise while a mode is on, given back the way it has without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.jit import _builtins

from repro_audit.capture.beneath import beneath, settle_all
from repro_audit.capture.guards import unseen_by_dynamo
from repro_audit.capture.replaced import Replaced

# Compute vectors too, whoever asks for values alone, where a mode is on.
_OF_VALUES = (
    "cond",
    "eigvals",
    "eigvalsh",
    "matrix_norm",
    "matrix_rank",
    "norm",
    "svdvals",
)


class Composites:
    """Stands in for functions that torch composes otherwise where a mode is on.

    Under any mode `torch.ctc_loss` leaves lengths in the tensors that they came in, and divides a
    device's losses by the host's lengths, which fails; smoothed cross entropy adds up the weights
    of its classes in another order; eigenvalues and singular values come from other routines.
    """

    def __init__(self) -> None:
        self._replaced = Replaced()
        self._builtins: list[int] = []

    def install(self) -> None:
        """Wrap them."""
        self._wrap(torch._C._nn, "cross_entropy_loss", self._weighted)
        for name in _OF_VALUES:
            self._wrap(torch.linalg, name, self._always)
            # Where it comes from, too: there a pickle looks for it.
            module = vars(torch._C)["_linalg"]
            self._replaced.put(module, f"linalg_{name}", getattr(torch.linalg, name))
        for name in ("ctc_loss", "nuclear_norm", "svd"):
            self._wrap(torch, name, self._always)
        self._replaced.wrap(torch.autograd, "_engine_run_backward", self._beginning)

    def uninstall(self) -> None:
        """Give them back."""
        self._replaced.give_back()
        table = _builtins._get_builtin_table()  # type: ignore[no-untyped-call]
        for function in self._builtins:
            table.pop(function, None)
        self._builtins.clear()

    def _wrap(self, owner: Any, name: str, wrapping: Any) -> None:
        """Have TorchScript, which knows its functions by what they are, know the one put there."""
        builtin = _builtins._find_builtin(getattr(owner, name))  # type: ignore[no-untyped-call]
        self._replaced.wrap(owner, name, wrapping)
        function = getattr(owner, name)
        _builtins._register_builtin(function, builtin)
        self._builtins.append(id(function))

    def _always(self, original: Any) -> Any:
        return self._beneath(original, lambda args, kwargs: True)

    def _weighted(self, original: Any) -> Any:
        return self._beneath(original, _weighted_and_smoothed)

    def _beneath(self, original: Any, concerned: Callable[[Any, Any], bool]) -> Any:
        def observed(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or not concerned(args, kwargs):
                return original(*args, **kwargs)
            with beneath():
                return original(*args, **kwargs)

        unseen_by_dynamo(observed)
        return observed

    def _beginning(self, original: Any) -> Any:
        def observed(*args: Any, **kwargs: Any) -> Any:
            settle_all()
            return original(*args, **kwargs)

        unseen_by_dynamo(observed)
        return observed


def _weighted_and_smoothed(args: Any, kwargs: Any) -> bool:
    weight = args[2] if len(args) > 2 else kwargs.get("weight")
    smoothing = args[5] if len(args) > 5 else kwargs.get("label_smoothing", 0.0)
    return weight is not None and bool(smoothing)
