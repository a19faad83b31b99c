"""What modules give, and the gradients of it: the events of `--level modules`.

No operator is looked at. Gradients are seen by hooks on the tensors that a module returns, which
leave the graph as it is; `register_full_backward_hook` would put nodes of its own into it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture.guards import paused
from repro_audit.capture.outside import leaves
from repro_audit.model.codes import BACKWARD, FORWARD, RECOMPUTE

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.recorder import Recorder

GAVE = "module:forward"
GRADIENT = "module:gradient"
_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(eq=False, slots=True)
class _Output:
    """A tensor that modules returned, one after the other as they ended, and when it was so."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    digest: bytes | None
    # (module path, its event, name in what it returned) of each that returned it.
    givers: list[tuple[str, int, str | None]] = field(default_factory=list)


class ModuleEvents:
    """Records what each module returned, and its gradient once there is one."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def left(
        self, path: str, output: Any, mode: OpMode, *, backward: bool, code: int | None
    ) -> None:
        """A module has returned `output`; `backward` where a backward has it run once more."""
        recorder = self._recorder
        named = [(name, value) for name, value in leaves(output) if isinstance(value, torch.Tensor)]
        if not named:
            return
        phase, flags = (BACKWARD, RECOMPUTE) if backward else (FORWARD, 0)
        known, mode.returned = mode.returned, []
        with paused():
            mode.returned = [self._output(tensor, known) for _, tensor in named]
            found = list(zip(named, mode.returned, strict=True))
            index = recorder.module_event(
                mode,
                phase,
                path,
                GAVE,
                [(name, tensor, returned.digest) for (name, tensor), returned in found],
                code=code,
                cause=None,
                flags=flags,
            )
        for (name, tensor), returned in found:
            if not returned.givers:
                self._follow(tensor, returned, mode)
            returned.givers.append((path, index, name))

    def _output(self, tensor: torch.Tensor, known: list[_Output]) -> _Output:
        """What is known of it: a module often returns what its last child gave."""
        version = -1 if tensor.is_inference() else tensor._version
        for output in known:
            if output.tensor() is tensor and output.version == version != -1:
                return output
        digest = engine.plain_digest(tensor) if type(tensor) in _PLAIN else None
        return _Output(weakref.ref(tensor), version, digest)

    def _follow(self, tensor: torch.Tensor, output: _Output, mode: OpMode) -> None:
        """Record the gradient of what a module returned, when autograd has it."""
        if type(tensor) not in _PLAIN or not tensor.requires_grad or tensor.grad_fn is None:
            return
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return
        givers = output.givers

        def arrived(gradient: torch.Tensor) -> None:
            recorder = self._recorder
            if not recorder.active or torch.compiler.is_compiling():
                return
            with paused():
                digest = engine.plain_digest(gradient)
                # The outermost returned it last, and has its gradient first.
                for path, event, name in reversed(givers):
                    recorder.module_event(
                        mode,
                        BACKWARD,
                        path,
                        GRADIENT,
                        [(name, gradient, digest)],
                        code=None,
                        cause=event,
                        flags=0,
                    )

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]
