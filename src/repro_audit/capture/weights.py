"""What models and optimizers hold as events: parameters, buffers, an optimizer's state."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.capture.outside import leaves
from repro_audit.model.codes import KIND_PARAM, KIND_STATE, OPTIMIZER, WEIGHTS

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder


class Weights:
    """Records parameters and buffers before the first forward, after each update and at the end,
    each as an event of its own; and after each of its steps what an optimizer keeps, as one.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def take(self, named: Iterable[tuple[str, str, torch.Tensor]], code: int | None) -> None:
        """Record (module path, name, value) of parameters and buffers, in this order."""
        with self._recorder.readings.together():
            for module, name, tensor in named:
                self._take(module, name, tensor, code)

    def keep(
        self, optimizer: torch.optim.Optimizer, kept: Mapping[str, Any], code: int | None
    ) -> None:
        """Record the tensors among what an optimizer keeps for parameters of these names."""
        outputs: list[tuple[str | None, torch.Tensor | bytes]] = [
            (name, value)
            for owner, state in sorted(kept.items())
            for name, value in leaves(state, owner)
            # Numbers may tell the time, or where something is; what is learnt is in tensors.
            if isinstance(value, torch.Tensor)
        ]
        if outputs:
            op = f"state:{type(optimizer).__name__}"
            with self._recorder.readings.together():
                self._recorder.add(KIND_STATE, OPTIMIZER, op, outputs, code=code)

    def weigh(self, root: torch.nn.Module) -> None:
        """Record all parameters and buffers of a model, naming its modules."""
        names = self._recorder.main.names
        names.enter_root(root)
        self.take(names.tensors(root), None)

    def weigh_all(self) -> None:
        """Record what the models that are still there end with: `.numpy()` writes show here."""
        recorder = self._recorder
        mode = recorder.mode()
        if mode is not None and not mode.name:
            # Which models are still there must not depend on when garbage was last collected.
            gc.collect()
            for root in (*mode.names.roots(), *recorder.roots.unknown_to(mode.names)):
                self.weigh(root)

    def _take(self, module: str, name: str, tensor: torch.Tensor, code: int | None) -> None:
        recorder = self._recorder
        index = recorder.add(
            KIND_PARAM, WEIGHTS, f"param:{name}", [(name, tensor)], module=module, code=code
        )
        mode = recorder.mode()
        if index is not None and mode is not None:
            mode.names.recorded(tensor, index)
