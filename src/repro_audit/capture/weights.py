"""Parameters and buffers as events: before the first forward, after each update, at the end."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from repro_audit.capture.guards import paused
from repro_audit.capture.storages import storage_of
from repro_audit.model.codes import KIND_PARAM, WEIGHTS

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder


class Weights:
    """Records what models and optimizers hold, each tensor as an event of its own."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def take(self, named: Iterable[tuple[str, str, torch.Tensor]], code: int | None) -> None:
        """Record (module path, name, value) of parameters and buffers, in this order."""
        with self._recorder.readings.together():
            for module, name, tensor in named:
                self._take(module, name, tensor, code)

    def weigh(self, root: torch.nn.Module) -> None:
        """Record all parameters and buffers of a model, naming its modules."""
        names = self._recorder.main.names
        names.enter_root(root)
        self.of_model(names.tensors(root), None)

    def of_model(self, named: Iterable[tuple[str, str, torch.Tensor]], code: int | None) -> None:
        """As `take`, of all that a model holds; and note whether processes share some of it."""
        held = list(named)
        with paused():
            storages = (storage_of(tensor) for _, _, tensor in held if tensor.is_cpu)
            shared = any(found is not None and found.is_shared() for found in storages)
        self._recorder.shared |= shared
        self.take(held, code)

    def weigh_all(self) -> None:
        """Record what the models that are still there end with: `.numpy()` writes show here."""
        recorder = self._recorder
        mode = recorder.mode()
        if mode is not None and not mode.name:
            # Which models are still there must not depend on when garbage was last collected.
            gc.collect()
            known = mode.names.roots()
            others = (r for r in recorder.roots.in_order() if not mode.names.knows(r))
            for root in (*known, *others):
                self.weigh(root)

    def _take(self, module: str, name: str, tensor: torch.Tensor, code: int | None) -> None:
        recorder = self._recorder
        index = recorder.add(
            KIND_PARAM, WEIGHTS, f"param:{name}", [(name, tensor)], module=module, code=code
        )
        mode = recorder.mode()
        if index is not None and mode is not None:
            mode.names.recorded(tensor, index)
