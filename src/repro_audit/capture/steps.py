"""Steps without the user's help, and the hooks on modules and optimizers that they need."""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._C import _current_autograd_node
from torch.fx import GraphModule, _symbolic_trace, graph_module
from torch.jit import _trace
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizers

from repro_audit.capture.dispatch import address_of, paused, unseen_by_dynamo
from repro_audit.capture.outside import leaves

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.recorder import Recorder

_PLAIN = (torch.Tensor, nn.Parameter)
_COMPILE_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks on modules"


# Steps of one optimizer without another that was constructed, before that counts as unused.
_PATIENCE = 10
# Functions of torch.nn.Module that run a module's hooks.
_CALLERS = frozenset({"_call_impl", "inner"})
# Where they are, and what calls them for a graph.
_CALLING_FILES = frozenset({hooks.__file__, graph_module.__file__})


class StepLimitExit(SystemExit):
    """Raised in the audited program where its last step ends; its `finally` blocks run."""


class Steps:
    """Counts steps: one ends when every optimizer in use has stepped; else by the root's forward.

    A program with two optimizers (a GAN) makes one step when both have stepped. One that is
    constructed but never used is left out once another has stepped ten times without it. Without
    any optimizer, a step begins with each forward of the first root module.
    """

    def __init__(self, recorder: Recorder, *, limit: int | None, automatic: bool) -> None:
        self._recorder = recorder
        self._limit = limit
        self._automatic = automatic
        self.limit_reached = False
        self._handles: list[Any] = []
        self._init = optimizers.Optimizer.__init__
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._constructed = False
        self._stepped: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ever: weakref.WeakSet[Any] = weakref.WeakSet()
        self._waiting = 0
        self._pacer: weakref.ref[nn.Module] | None = None
        self._forwards = 0
        self._weighed: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def install(self) -> None:
        """Hook modules and optimizers; nothing that a hook returns reaches the program."""
        init = self._init
        noted = self._constructed_one

        @functools.wraps(init)
        def observed_init(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            init(optimizer, *args, **kwargs)
            noted(optimizer)

        # The hooks it warns of are ours.
        warnings.filterwarnings("ignore", message=_COMPILE_WARNING)
        optimizers.Optimizer.__init__ = observed_init  # type: ignore[method-assign,assignment]
        unseen_by_dynamo(Steps._enter, Steps._leave, Steps._before_step, Steps._after_step)
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            # always_call: a checkpoint ends its recompute by an exception inside a module.
            hooks.register_module_forward_hook(self._leave, always_call=True),
            optimizers.register_optimizer_step_pre_hook(self._before_step),
            optimizers.register_optimizer_step_post_hook(self._after_step),
        ]

    def uninstall(self) -> None:
        """Remove the hooks."""
        optimizers.Optimizer.__init__ = self._init  # type: ignore[method-assign]
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def ended(self) -> int:
        """Steps ended so far, counting one that was begun by a root's forward."""
        begun = self._forwards > 0 and not self._constructed
        return self._recorder.step + (1 if begun else 0)

    # -- modules --------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any) -> None:
        recorder = self._recorder
        if not recorder.active or torch.compiler.is_compiling():
            return
        mode = recorder.mode()
        if mode is None:
            return
        stack = mode.stack
        caller = sys._getframe(1)
        if mode.leaving:
            mode.settle(caller.f_back)
        backward = _current_autograd_node() is not None
        if stack:
            stack.append((recorder.names.path(module, stack[-1][0]), backward))
            return
        if self._is_torchs(module, caller):
            stack.append(("", backward))
            return
        path = recorder.names.enter_root(module)
        if not backward:
            self._enter_root(module, (args, _keywords(caller)), mode)
        stack.append((path, backward))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        recorder = self._recorder
        if not recorder.active or torch.compiler.is_compiling():
            return
        mode = recorder.mode()
        if mode is not None and mode.stack:
            mode.leave(module, sys._getframe(1))

    def _is_torchs(self, module: nn.Module, caller: FrameType) -> bool:
        """Whether torch calls a module for its own ends, with no other above it.

        To trace it, to check a trace, or as a graph that torch made.
        """
        if _symbolic_trace._is_fx_tracing_flag:
            return True
        at: FrameType | None = caller
        while at is not None and at.f_code.co_filename in _CALLING_FILES:
            at = at.f_back
        if at is not None and at.f_code.co_filename == _trace.__file__:
            return True
        made = isinstance(module, GraphModule) and not self._recorder.names.is_named(module)
        return made and self._recorder.locator.direct(at) is None

    def _enter_root(self, root: nn.Module, inputs: tuple[Any, Any], mode: OpMode) -> None:
        recorder = self._recorder
        if self._pacer is None:
            self._pacer = weakref.ref(root)
        if self._pacer() is root and mode.thread == 0:
            if self._forwards and not self._constructed and self._automatic:
                self._end_step()
            self._forwards += 1
        code = recorder.locator.number(sys._getframe(2))
        # Which of several threads is first is chance; the end of the run records all roots anyway.
        if root not in self._weighed and mode.thread == 0:
            self._weighed.add(root)
            for module, name, tensor in recorder.names.tensors(root):
                recorder.parameter(module, name, tensor, code)
        # `.numpy()` writes and foreign memory are invisible to the dispatcher; here they show.
        arguments, keywords = inputs
        named = [*leaves(arguments), *leaves(keywords)]
        recorder.batch(f"inputs:{type(root).__name__}", named, code)

    # -- optimizers -----------------------------------------------------------------------------

    def _constructed_one(self, optimizer: Any) -> None:
        self._optimizers.add(optimizer)
        self._constructed = True

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        recorder = self._recorder
        mode = recorder.mode()
        if mode is None or not recorder.active:
            return
        mode.optimizing += 1
        mode.owner = ""
        # `args` begins with the optimizer itself.
        mode.closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        optimized: dict[int, tuple[weakref.ref[torch.Tensor], tuple[str, str]]] = {}
        with paused():
            for tensor, owner in self._tensors(optimizer):
                for found in (tensor, tensor.grad, *optimizer.state.get(tensor, {}).values()):
                    if type(found) in _PLAIN:
                        optimized[address_of(found)] = (weakref.ref(found), owner)
        recorder.optimized = optimized

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        recorder = self._recorder
        mode = recorder.mode()
        if mode is None or not recorder.active:
            return
        mode.optimizing = max(0, mode.optimizing - 1)
        code = recorder.locator.number(sys._getframe(1))
        with paused():
            named = [(owner, tensor) for tensor, owner in self._tensors(optimizer)]
        # The order of parameters is the optimizer's business; that of our events must not be.
        for (module, name), tensor in sorted(named, key=lambda item: item[0]):
            recorder.parameter(module, name, tensor, code)
        self._optimizers.add(optimizer)
        self._constructed = True
        if mode.optimizing:
            # Within another's step, or within its own: a subclass that calls its parent's.
            self._stepped.add(optimizer)
            return
        # A critic may step several times before its generator first does.
        self._waiting += optimizer in self._stepped
        self._stepped.add(optimizer)
        self._ever.add(optimizer)
        if self._waiting >= _PATIENCE:
            for idle in [o for o in self._optimizers if o not in self._ever]:
                self._optimizers.discard(idle)
        if self._automatic and all(o in self._stepped for o in self._optimizers):
            self._stepped.clear()
            self._waiting = 0
            self._end_step()

    def _tensors(self, optimizer: Any) -> list[tuple[torch.Tensor, tuple[str, str]]]:
        """(parameter, (module path, name)) of an optimizer; unnamed ones by group and place."""
        names = self._recorder.names
        return [
            (parameter, names.owner(parameter) or ("", f"group{group}.{at}"))
            for group, entry in enumerate(optimizer.param_groups)
            for at, parameter in enumerate(entry["params"])
            if parameter.layout is torch.strided
        ]

    def _end_step(self) -> None:
        recorder = self._recorder
        recorder.end_step()
        if self._limit is not None and recorder.step >= self._limit:
            self.limit_reached = True
            recorder.stop()
            raise StepLimitExit(0)


def _keywords(caller: FrameType) -> Any:
    """The keyword arguments of a module's call: torch hands a global hook only the others."""
    return caller.f_locals.get("kwargs") if caller.f_code.co_name in _CALLERS else None
