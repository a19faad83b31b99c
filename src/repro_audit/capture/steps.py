"""Steps without the user's help, and the hooks on modules and optimizers that they need."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn
from torch._C import _current_autograd_node
from torch.fx import GraphModule, graph_module
from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.jit import _trace
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizers

from repro_audit.capture.guards import paused, unseen_by_dynamo
from repro_audit.capture.module_events import ModuleEvents
from repro_audit.capture.outside import leaves
from repro_audit.capture.places import address_of
from repro_audit.capture.replaced import Replaced
from repro_audit.capture.states import parameters_of

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.recorder import Recorder

_PLAIN = (torch.Tensor, nn.Parameter)
_COMPILE_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks on modules"


# Functions of torch.nn.Module that run a module's hooks.
_CALLERS = frozenset({"_call_impl", "inner"})
# Where they are, and what calls them for a graph.
_CALLING_FILES = frozenset({hooks.__file__, graph_module.__file__})


class _Marks:
    """Attributes alone, which compiled code sets: Dynamo would guard on what is in a dict."""


class StepLimitExit(SystemExit):
    """Raised in the audited program where its last step ends; its `finally` blocks run."""


class Steps:
    """Counts steps: one ends when every optimizer in use has stepped; else by the root's forward.

    Each thread counts its own (`pace.Pace`). Without any optimizer, a step begins with each forward
    of the first root module in the main thread. The limit on steps ends the program where the main
    thread reaches it, another thread where it does; `cut` where the main thread's optimizer is
    about to make that step. Of a step that `torch.compile` compiled is known that it was made: it
    ends before the thread's next operator outside of a module, its next root or its next step.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        limit: int | None,
        cut: int | None,
        idle: tuple[int, ...],
        automatic: bool,
    ) -> None:
        self._recorder = recorder
        self._modules = ModuleEvents(recorder)
        self.limit = limit
        self._cut = cut
        self._idle = idle
        # Which optimizers have stepped, in the order in which they were made.
        self._stepped: list[bool] = []
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._marks = _Marks()
        # Which optimizers' compiled steps have run since they were last asked for.
        self.compiled = vars(self._marks)
        self._automatic = automatic
        self.limit_reached = False
        self._handles: list[Any] = []
        self._replaced = Replaced()
        self._constructed = False
        self._pacer: weakref.ref[nn.Module] | None = None
        self._forwards = 0
        self._weighed: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def install(self) -> None:
        """Hook modules and optimizers; nothing that a hook returns reaches the program."""
        # The hooks it warns of are ours.
        warnings.filterwarnings("ignore", message=_COMPILE_WARNING)
        self._replaced.wrap(optimizers.Optimizer, "__init__", self._constructing)
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
        self._replaced.give_back()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def idle(self) -> list[int]:
        """Optimizers that made no step, where others did."""
        if not any(self._stepped):
            return []
        return [number for number, stepped in enumerate(self._stepped) if not stepped]

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
            stack.append((mode.names.path(module, stack[-1][0]), backward))
            return
        if self._is_torchs(module, caller, mode):
            stack.append(("", backward))
            return
        path = mode.names.enter_root(module)
        if not backward:
            self._enter_root(module, (args, _keywords(caller)), mode)
        stack.append((path, backward))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        recorder = self._recorder
        if not recorder.active or torch.compiler.is_compiling():
            return
        mode = recorder.mode()
        if mode is None:
            return
        frame = sys._getframe(1)
        mode.settle(frame)
        if not mode.stack:
            return
        path, backward = mode.stack[-1]
        mode.leave(module, frame)
        # What a graph returns, activations for its backward among it, its parent does not.
        if recorder.focus.modules and not mode.names.is_graph(module):
            code = recorder.locator.number(frame)
            self._modules.left(path, output, mode, backward=backward, code=code)

    def _is_torchs(self, module: nn.Module, caller: FrameType, mode: OpMode) -> bool:
        """Whether torch calls a module for its own ends, with no other above it.

        To trace it, to check a trace, or as a graph that torch made.
        """
        if is_fx_symbolic_tracing():
            return True
        at: FrameType | None = caller
        while at is not None and at.f_code.co_filename in _CALLING_FILES:
            at = at.f_back
        if at is not None and at.f_code.co_filename == _trace.__file__:
            return True
        made = isinstance(module, GraphModule) and not mode.names.knows(module)
        return made and self._recorder.locator.direct(at) is None

    def _enter_root(self, root: nn.Module, inputs: tuple[Any, Any], mode: OpMode) -> None:
        recorder = self._recorder
        self.end_compiled(mode)
        if not mode.name and self._pacer is None:
            self._pacer = weakref.ref(root)
        if not mode.name and self._pacer is not None and self._pacer() is root:
            if self._forwards and not self._constructed and self._automatic:
                self._end_step(mode)
            self._forwards += 1
        code = recorder.locator.number(sys._getframe(2))
        # Which of several threads is first is chance; the end of the run records all roots anyway.
        if mode.name:
            recorder.roots.see(root, mode.name)
        elif recorder.beginnings or root not in self._weighed:
            self._weighed.add(root)
            recorder.weights.of_model(mode.names.tensors(root), code)
            if recorder.beginnings:
                recorder.generator_states()
        # `.numpy()` writes and foreign memory are invisible to the dispatcher; here they show.
        arguments, keywords = inputs
        named = [*leaves(arguments), *leaves(keywords)]
        recorder.batch(f"inputs:{type(root).__name__}", named, code)

    # -- optimizers -----------------------------------------------------------------------------

    def _constructing(self, init: Any) -> Any:
        def observed_init(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            init(optimizer, *args, **kwargs)
            mode = self._recorder.mode()
            number = self._numbers.setdefault(optimizer, len(self._stepped))
            # Of one that is gone, where this one is now.
            self.compiled.pop(_mark(optimizer), None)
            if number == len(self._stepped):
                self._stepped.append(False)
            if mode is not None:
                if number not in self._idle:
                    mode.pace.add(optimizer)
                self._recorder.states.constructed(optimizer, mode)
            self._constructed = True

        return observed_init

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        recorder = self._recorder
        mode = recorder.mode()
        if mode is None or not recorder.active:
            return
        if not mode.optimizing:
            self.end_compiled(mode)
            if self._cut is not None and mode.step >= self._cut and not mode.name:
                self._end_program()
            if recorder.beginnings:
                recorder.states.begins(optimizer, mode, recorder.locator.number(sys._getframe(1)))
        mode.optimizing += 1
        mode.owner = ""
        # `args` begins with the optimizer itself.
        mode.closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        optimized: dict[int, tuple[weakref.ref[torch.Tensor], tuple[str, str]]] = {}
        with paused():
            for tensor, owner in self._tensors(optimizer, mode):
                for found in (tensor, tensor.grad, *optimizer.state.get(tensor, {}).values()):
                    if type(found) in _PLAIN:
                        optimized[address_of(found)] = (weakref.ref(found), owner)
        mode.optimized = optimized

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            # Never run, but traced: the graph stays whole, and what calls it sets this each time.
            setattr(self._marks, _mark(optimizer), True)
            return
        recorder = self._recorder
        mode = recorder.mode()
        if mode is None or not recorder.active:
            return
        mode.optimizing = max(0, mode.optimizing - 1)
        if self._has_stepped(optimizer, mode, recorder.locator.number(sys._getframe(1))):
            self._end_step(mode)

    def settle(self) -> None:
        """At the end: record what the calling thread's last compiled steps did."""
        mode = self._recorder.mode()
        if mode is None:
            return
        for optimizer in self._with_compiled_steps(mode):
            if self._has_stepped(optimizer, mode, None):
                self._recorder.end_step()

    def end_compiled(self, mode: OpMode) -> None:
        """Before what comes next: end the steps that the thread's optimizers made compiled."""
        for optimizer in self._with_compiled_steps(mode):
            if self._has_stepped(optimizer, mode, None):
                self._end_step(mode)
                if self._cut is not None and mode.step >= self._cut and not mode.name:
                    self._end_program()

    def _with_compiled_steps(self, mode: OpMode) -> Iterator[Any]:
        """The calling thread's optimizers whose compiled steps have run, each told once."""
        if not self.compiled:
            return
        for optimizer, _ in sorted(self._numbers.items(), key=lambda item: item[1]):
            if mode.pace.has(optimizer) and self.compiled.pop(_mark(optimizer), False):
                yield optimizer

    def _has_stepped(self, optimizer: Any, mode: OpMode, code: int | None) -> bool:
        """Record what an optimizer's step made; True if that ends the thread's step."""
        recorder = self._recorder
        with paused():
            named = [(owner, tensor) for tensor, owner in self._tensors(optimizer, mode)]
        # The order of parameters is the optimizer's business; that of our events must not be.
        ordered = sorted(named, key=lambda item: item[0])
        recorder.weights.take(((*owner, tensor) for owner, tensor in ordered), code)
        self._constructed = True
        number = self._numbers.get(optimizer)
        if number is not None:
            self._stepped[number] = True
        if mode.optimizing:
            # Within another's step, or within its own: a subclass that calls its parent's.
            mode.pace.within(optimizer)
            return False
        recorder.states.stepped(optimizer, mode, code)
        if not (mode.pace.stepped(optimizer) and self._automatic):
            return False
        mode.pace.restart()
        return True

    def _tensors(self, optimizer: Any, mode: OpMode) -> list[tuple[torch.Tensor, tuple[str, str]]]:
        named = parameters_of(optimizer, mode)
        return [(tensor, owner) for tensor, owner in named if tensor.layout is torch.strided]

    def _end_step(self, mode: OpMode) -> None:
        recorder = self._recorder
        recorder.end_step()
        if self.limit is None or mode.step < self.limit:
            return
        if not mode.name:
            self._end_program()
        raise StepLimitExit(0)

    def _end_program(self) -> NoReturn:
        self.limit_reached = True
        self._recorder.stop()
        raise StepLimitExit(0)


def _mark(optimizer: Any) -> str:
    return f"step{id(optimizer)}"


def _keywords(caller: FrameType) -> Any:
    """The keyword arguments of a module's call: torch hands a global hook only the others."""
    return caller.f_locals.get("kwargs") if caller.f_code.co_name in _CALLERS else None
