"""Collectives between processes: their results are there later than their operators return."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.capture.replaced import Replaced

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.recorder import Recorder

# Of a process group; what the others do gives this process no tensor.
_RECEIVING = (
    "_allgather_base",
    "_reduce_scatter_base",
    "allgather",
    "allgather_coalesced",
    "allgather_into_tensor_coalesced",
    "allreduce",
    "allreduce_coalesced",
    "alltoall",
    "alltoall_base",
    "broadcast",
    "gather",
    "recv",
    "recv_anysource",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor_coalesced",
    "scatter",
)


class Collectives:
    """Records what a collective gave once the program has waited for it.

    Not seen: what native code waits for, such as the gradients that DistributedDataParallel
    exchanges; they show in the operators that read them.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        # What is under way: its operator, and the tensors that it was given.
        self._pending: weakref.WeakKeyDictionary[Any, tuple[str, list[weakref.ref[Any]]]] = (
            weakref.WeakKeyDictionary()
        )
        self._replaced = Replaced()

    def install(self) -> None:
        """Wrap the methods of process groups, and waiting for what they return."""
        if not torch.distributed.is_available():
            return
        from torch._C._distributed_c10d import ProcessGroup, Work

        for name in _RECEIVING:
            if hasattr(ProcessGroup, name):
                self._replaced.wrap(ProcessGroup, name, self._asking)
        self._replaced.wrap(Work, "wait", self._waiting)

    def uninstall(self) -> None:
        """Give the methods back."""
        self._replaced.give_back()

    def begun(self, mode: OpMode, op: str, tensors: list[torch.Tensor]) -> None:
        """A collective's operator ran; it will have written what it was given to write into."""
        for tensor in tensors:
            self._recorder.memory.wrote(tensor)
        mode.collective = op, [weakref.ref(tensor) for tensor in tensors]

    def _asking(self, ask: Any) -> Any:
        def observed_ask(group: Any, *args: Any, **kwargs: Any) -> Any:
            mode = self._recorder.mode() if self._recorder.active else None
            if mode is None:
                return ask(group, *args, **kwargs)
            mode.collective = None
            work = ask(group, *args, **kwargs)
            if mode.collective is not None and work is not None:
                self._pending[work] = mode.collective
                mode.collective = None
            return work

        return observed_ask

    def _waiting(self, wait: Any) -> Any:
        def observed_wait(work: Any, *args: Any, **kwargs: Any) -> Any:
            done = wait(work, *args, **kwargs)
            pending = self._pending.pop(work, None)
            if pending is not None:
                op, references = pending
                tensors = [tensor for tensor in (r() for r in references) if tensor is not None]
                code = self._recorder.locator.number(sys._getframe(1))
                self._recorder.received(op, tensors, code)
            return done

        return observed_wait
