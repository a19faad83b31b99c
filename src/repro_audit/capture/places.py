"""Where an operator belongs: to which module, and to which forward operator a backward one."""

from __future__ import annotations

import sys
import threading
import weakref
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch._C._autograd import _get_sequence_nr

from repro_audit.capture import graphs
from repro_audit.capture.causes import Bound, Causes
from repro_audit.capture.modules import ModuleNames

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

_ACCUMULATE = 2**64 - 1
_Tensor = torch.Tensor
_Parameter = torch.nn.Parameter


class Places:
    """The modules that a thread runs, its autograd nodes and what its optimizers work on."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder = recorder
        self.name = name
        # Other threads name what they run at the same time: which is first would be chance.
        self.names = ModuleNames(None if name else recorder.roots_given)
        self.optimized: dict[int, tuple[weakref.ref[torch.Tensor], tuple[str, str]]] = {}
        # (module path, entered during backward) of the modules now running, outermost first.
        self.stack: list[tuple[str, bool]] = []
        # Of those that returned, but whose own hooks may still run: how many modules ran with each,
        # and the frame, by id and code, that runs the hooks.
        self.leaving: list[tuple[int, int, CodeType]] = []
        self.owner = ""
        # Module of the backward node that ran last.
        self.reached = ""
        self.causes = Causes(_get_sequence_nr())
        self._ident = threading.get_ident()
        # Threads of autograd's own (one a device) run this mode too, with numbers of their own.
        self._engine_causes: dict[int, Causes] = {}

    def owner_of(self, tensor: torch.Tensor) -> tuple[str, str] | None:
        """(module path, name) of a parameter of a model that this thread or the main one ran."""
        return self.names.owner(tensor) or self.recorder.main.names.owner(tensor)

    def _of_node(self, node: Any, causes: Causes) -> tuple[str, int | None]:
        """(module path, event) of the forward operator that a backward node belongs to.

        Where a gradient is accumulated, of the parameter.
        """
        number = node._sequence_nr()
        if number == _ACCUMULATE:
            variable = node.variable
            owner = self.owner_of(variable)
            event = self.names.last_event(variable)
            if event is None:
                event = self.recorder.main.names.last_event(variable)
            if owner is not None:
                return owner[0], event
            # Of a model that another thread ran: the node before it made the gradient.
            return (self.reached if self.recorder.threaded else ""), event
        if causes is self.causes:
            causes.running(number)
        bound = self._bound(node, number, causes)
        if bound is None:
            return "", None
        self.reached = bound[1]
        return bound[1], bound[0]

    def _bound(self, node: Any, number: int, causes: Causes) -> Bound | None:
        """The event of the operator that made a node; several threads number theirs alike."""
        if self.recorder.threaded:
            return graphs.causes_of(node, self).of(node, number)
        if causes is self.causes:
            bound = causes.of(node, number)
            if bound is not None:
                return bound
        return graphs.among(self.all_causes(), node)

    def _call_site(self, caller: FrameType | None) -> int | None:
        """Number of the line behind an operator in a thread of autograd's own.

        It runs for the thread that waits for it, and may have no frame itself.
        """
        locator = self.recorder.locator
        own = locator.number(caller)
        return own if own is not None else locator.number(sys._current_frames().get(self._ident))

    def _causes_here(self) -> Causes:
        """The causes of the calling thread, one of autograd's own."""
        ident = threading.get_ident()
        causes = self._engine_causes.get(ident)
        if causes is None:
            causes = self._engine_causes[ident] = Causes(0)
        return causes

    def all_causes(self) -> tuple[Causes, ...]:
        """The causes of this thread and of those that run its backwards."""
        return (self.causes, *self._engine_causes.values())

    def _of_optimizer(self, args: Any) -> str:
        """Module whose parameter (or its gradient or state) an optimizer's operator works on.

        Temporaries belong to the parameter worked on before them; lists of several to none.
        """
        first = args[0] if args else None
        if isinstance(first, list | tuple):
            if len(first) != 1:
                return ""
            first = first[0]
        if type(first) is _Tensor or type(first) is _Parameter:
            owner = self._optimized(first)
            if owner is not None:
                self.owner = owner[0]
        return self.owner

    def _of_parameter(self, tensor: torch.Tensor) -> str | None:
        """Name of the parameter that a tensor of a list belongs to, as part of an update."""
        owner = self._optimized(tensor)
        return None if owner is None else ".".join(part for part in owner if part)

    def _optimized(self, tensor: torch.Tensor) -> tuple[str, str] | None:
        known = self.optimized.get(address_of(tensor))
        # Memory of a tensor that is gone may be anybody's by now.
        return known[1] if known is not None and known[0]() is not None else None

    def leave(self, module: torch.nn.Module, frame: FrameType) -> None:
        """Take a module off the stack: at once or, where hooks of its own follow, after those."""
        self.settle(frame)
        hooked = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
        if hooked and frame.f_code.co_name == "inner":
            self.leaving.append((len(self.stack), id(frame), frame.f_code))
        elif self.stack:
            self.stack.pop()

    def settle(self, frame: FrameType | None) -> None:
        """Take modules off the stack whose hooks have run: those that no frame from `frame` runs.

        To be called before another module's hooks run: their frame may get the id of one that is
        gone.
        """
        leaving = self.leaving
        while leaving and leaving[-1][0] == len(self.stack):
            _, ident, code = leaving[-1]
            at = frame
            while at is not None and not (id(at) == ident and at.f_code is code):
                at = at.f_back
            if at is not None:
                return
            leaving.pop()
            self.stack.pop()


def address_of(tensor: torch.Tensor) -> int:
    """Where a tensor's memory begins; of one without memory of its own, where its object is."""
    try:
        return tensor.data_ptr()
    except RuntimeError:  # sparse, or a wrapper
        return id(tensor)
