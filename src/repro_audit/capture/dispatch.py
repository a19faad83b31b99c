"""The dispatch mode: sees every operator of one thread and records it as an event."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch._C import _current_autograd_node
from torch._C._autograd import _get_sequence_nr
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit.capture import graphs
from repro_audit.capture.focus import READ, SILENT
from repro_audit.capture.graphs import Bindings
from repro_audit.capture.modules import ModuleNames
from repro_audit.capture.operators import Operator
from repro_audit.capture.pace import Pace

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

KIND_OP, KIND_PARAM, KIND_BATCH, KIND_RNG, KIND_MODULE = range(5)
DATA, RNG, WEIGHTS, FORWARD, BACKWARD, OPTIMIZER = range(6)
PHASES = ("data", "rng", "weights", "forward", "backward", "optimizer")
TAINTED, RANDOM, RECOMPUTE, INPUTS = 1, 2, 4, 8
_ACCUMULATE = 2**64 - 1
# Nodes whose operators are remembered: those of so many steps, but never fewer or more than this.
# A graph may outlive its step, as hidden states carried over do.
_GRAPH_STEPS, _GRAPH_LEAST, _GRAPH_MOST = 8, 16_384, 400_000
_Tensor = torch.Tensor
_Parameter = torch.nn.Parameter


class OpMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operators of the thread it is entered in; one instance a thread.

    The program's operator runs exactly as it would have: arguments are passed on untouched, the
    result is returned untouched, and nothing is read from a device or drawn from a generator.
    Cost: some microseconds an operator, plus reading what it wrote once; docs/performance.md.
    """

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder, name: str, step: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.name = name
        # Threads that this one has started, roots that it has entered.
        self.started = self.entered = 0
        # The mode that this one is entered on top of, in the same thread.
        self.under: OpMode | None = None
        # Other threads name what they run at the same time: which is first would be chance.
        self.names = ModuleNames()
        self.pace = Pace()
        self.optimized: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        # (module path, entered during backward) of the modules now running, outermost first.
        self.stack: list[tuple[str, bool]] = []
        self.loading = 0
        # More than 0 while what this thread does is not to be recorded.
        self.muted = 0
        self.reading = recorder.focus.begins(name, step)
        # What the module that ended last returned.
        self.returned: list[Any] = []
        # Steps of this thread: what other threads have done meanwhile depends on the weather.
        self.step = step
        self.optimizing = 0
        # True while an optimizer that was given a closure steps.
        self.closure = False
        self.owner = ""
        self.sequence = _get_sequence_nr()
        self.bindings: Bindings = {}
        self.previous = (0, "", "")
        self._ends: deque[int] = deque(maxlen=_GRAPH_STEPS)
        # The collective that this thread has just begun.
        self.collective: tuple[str, list[weakref.ref[torch.Tensor]]] | None = None
        # Module of the backward node that ran last.
        self.reached = ""
        self.counts: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        # A thread is numbered when it first does something: most of a pool's never do.
        if name != "thread":
            raise AttributeError(name)
        self.thread = number = self.recorder.sink.thread(self.name) if self.name else 0
        return number

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """True, or `torch.compile` would silently be turned off while the mode is active."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, or each call is wrapped in a guard that costs more than the handler."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        recorder = self.recorder
        operator = recorder.operators.get(func)
        if operator is None:
            operator = recorder.operators[func] = Operator(func)
        if operator.skip or self.muted or not recorder.active:
            return func(*args, **kwargs) if kwargs else func(*args)
        if self.reading == SILENT:
            result = func(*args, **kwargs) if kwargs else func(*args)
            if operator.empty:
                recorder.memory.poisoned(result)
            return result

        index = recorder.next_index()
        cause = None
        flags = RANDOM if operator.random else 0
        kind = KIND_OP
        stack = self.stack
        node = _current_autograd_node()
        if node is not None:
            phase = BACKWARD
            module, cause = self._of_node(node)
            if stack and stack[-1][1]:
                module = stack[-1][0]
                flags |= RECOMPUTE
        elif stack:
            phase = FORWARD
            module = stack[-1][0]
        elif self.optimizing and not (self.closure and torch.is_grad_enabled()):
            phase = OPTIMIZER
            module = self._of_optimizer(args)
        else:
            module = ""
            if self.loading or operator.outside:
                phase = DATA
            elif operator.writes and args and type(args[0]) is _Parameter:
                phase = WEIGHTS
                owner = self.owner_of(args[0])
                module = owner[0] if owner else ""
            else:
                phase = FORWARD

        if operator.outside and phase != OPTIMIZER:
            kind = KIND_BATCH
        sequence = _get_sequence_nr()
        if sequence != self.sequence:
            self._bind(sequence, index, module, operator.name)
            if self.name:
                graphs.mark(args, self)
        self.previous = (index, module, operator.name)

        site = recorder.site(module, operator.name)
        counts = self.counts
        place = site * 8 + phase
        count = counts.get(place, 0)
        counts[place] = count + 1
        code = recorder.locator.number(sys._getframe(1))

        memory = recorder.memory
        if memory.unwritten and memory.read_by(operator, args, kwargs):
            flags |= TAINTED
        readable = not operator.blind
        attended = self.reading == READ
        if operator.partial and memory.unwritten and memory.holds(args[0]):
            # Circular padding moves corners that it writes only later.
            readable = operator.fills and not memory.holds(args[1])
        captured = (
            attended
            and bool(recorder.wanted)
            and recorder.wants(phase, module, operator.name, count, self)
        )
        if captured and recorder.take_inputs(index, operator, args, kwargs):
            flags |= INPUTS

        result = func(*args, **kwargs) if kwargs else func(*args)

        recorder.add_event(
            (index, kind, self.step, phase, self.thread, site, count, code, cause, flags)
        )
        if operator.empty:
            memory.made(result)
            return result
        if operator.collective:
            recorder.collectives.begun(self, operator.name, list(tensors_in(args)))
            return result
        read = attended and readable
        read = read and (phase != OPTIMIZER or recorder.optimizer_ops or captured)
        if operator.many and read:
            with recorder.readings.together():
                self._outputs(operator, index, args, kwargs, result, read, captured, readable)
        else:
            self._outputs(operator, index, args, kwargs, result, read, captured, readable)
        if operator.scratch and recorder.wanted:
            memory.noise(result[at] for at in operator.scratch)
        return result

    def _outputs(
        self,
        operator: Operator,
        index: int,
        args: Any,
        kwargs: Any,
        result: Any,
        read: bool,
        keep: bool,
        whole: bool,
    ) -> None:
        """Fingerprint what the operator wrote: its mutable arguments, then its fresh results."""
        recorder = self.recorder
        position = 0
        for at, name in operator.writes:
            written = (
                args[at] if at < len(args) else kwargs.get(name) if kwargs is not None else None
            )
            if type(written) is _Tensor or type(written) is _Parameter:
                recorder.add_tensor(index, position, written, read, keep, whole)
                position += 1
            else:
                for tensor in tensors_in(written):
                    recorder.add_tensor(index, position, tensor, read, keep, whole)
                    position += 1
        returns = operator.returns
        if returns is None:
            for tensor in tensors_in(result):
                recorder.add_tensor(index, position, tensor, read, keep, whole)
                position += 1
        elif returns:
            if type(result) is _Tensor:
                recorder.add_tensor(index, position, result, read, keep, whole)
                return
            for item in (result,) if operator.single else (result[at] for at in returns):
                for tensor in tensors_in(item):
                    recorder.add_tensor(index, position, tensor, read, keep, whole)
                    position += 1

    def owner_of(self, tensor: torch.Tensor) -> tuple[str, str] | None:
        """(module path, name) of a parameter of a model that this thread or the main one ran."""
        return self.names.owner(tensor) or self.recorder.main.names.owner(tensor)

    def _of_node(self, node: Any) -> tuple[str, int | None]:
        """(module path, event) of the forward operator that a backward node belongs to."""
        number = node._sequence_nr()
        if number == _ACCUMULATE:
            owner = self.owner_of(node.variable)
            # Of a model that another thread ran: the node before it made the gradient.
            return (owner[0] if owner else self.reached), None
        if _get_sequence_nr() != self.sequence:
            # Nodes made after the last event: theirs is the operator that ran last.
            self._bind_rest(_get_sequence_nr())
        bindings = self.bindings
        if self.recorder.threaded:
            bindings = graphs.bindings_of(node, self)
        bound = bindings.get(number)
        if bound is None:
            return "", None
        self.reached = bound[1]
        return bound[1], bound[0]

    def _bind(self, sequence: int, index: int, module: str, op: str) -> None:
        """Bind the newest node to this event, older new ones to the event before it."""
        bindings = self.bindings
        for number in range(self.sequence, sequence - 1):
            bindings[number] = self.previous
        bindings[sequence - 1] = (index, module, op)
        self.sequence = sequence
        if len(bindings) > _GRAPH_MOST:
            self._forget(sequence - _GRAPH_MOST // 2)

    def _bind_rest(self, sequence: int) -> None:
        for number in range(self.sequence, sequence):
            self.bindings[number] = self.previous
        self.sequence = sequence

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
            try:
                owner = self.optimized.get(first.data_ptr())
            except RuntimeError:  # a sparse tensor has no address
                return self.owner
            # Memory of a tensor that is gone may be anybody's by now.
            if owner is not None and owner[0]() is not None:
                self.owner = owner[1]
        return self.owner

    def new_step(self) -> None:
        """Count a step, restart the call counts; forget nodes that no recent graph can hold."""
        self.step += 1
        self.counts.clear()
        before, self.reading = self.reading, self.recorder.focus.begins(self.name, self.step)
        if before == SILENT != self.reading:
            # What was made meanwhile belongs to no event.
            self.sequence = _get_sequence_nr()
        # An optimizer's step that raised, and was caught, had no end.
        self.optimizing = 0
        self._ends.append(self.sequence)
        if len(self._ends) == _GRAPH_STEPS:
            self._forget(min(self._ends[0], self.sequence - _GRAPH_LEAST))

    def _forget(self, before: int) -> None:
        """Forget which operators the nodes belong to that were made before this one."""
        old = list(takewhile(lambda number: number < before, self.bindings))
        for number in old:
            del self.bindings[number]


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of an argument or result: itself, or those of nested lists, tuples, dicts."""
    if isinstance(value, _Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


@contextmanager
def paused() -> Iterator[None]:
    """A guard under which our own reading reaches no mode and no subclass of the program's."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        yield


def unseen_by_dynamo(*functions: Any) -> None:
    """Keep Dynamo from compiling our functions, or what they call, where a program's code runs.

    Set once for the code, unlike `torch._dynamo.disable`, which costs microseconds a call.
    """
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    for function in functions:
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
