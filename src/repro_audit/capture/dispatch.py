"""The dispatch mode: sees every operator of one thread and records it as an event."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch._C import _current_autograd_node
from torch._C._autograd import _get_sequence_nr
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit.capture import graphs, late
from repro_audit.capture.beneath import Nodes
from repro_audit.capture.draws import flags_of
from repro_audit.capture.focus import READ, SILENT
from repro_audit.capture.memory import traced
from repro_audit.capture.operators import Operator, tensors_in
from repro_audit.capture.pace import Pace
from repro_audit.capture.places import Places
from repro_audit.model.codes import (
    BACKWARD,
    BACKWARD_CODE,
    DATA,
    FORWARD,
    INPUTS,
    KIND_BATCH,
    KIND_OP,
    OPTIMIZER,
    RANDOM,
    RECOMPUTE,
    TAINTED,
    WEIGHTS,
)

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

_Tensor = torch.Tensor
_Parameter = torch.nn.Parameter


class OpMode(Places, TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operators of the thread it is entered in; one instance a thread.

    The program's operator runs exactly as it would have: arguments are passed on untouched, the
    result is returned untouched, and nothing is read from a device or drawn from a generator.
    Cost: some microseconds an operator, plus reading what it wrote once; docs/performance.md.
    """

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder, name: str, step: int) -> None:
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        Places.__init__(self, recorder, name)
        # Threads that this one has started.
        self.started = 0
        # The mode that this one is entered on top of, in the same thread.
        self.under: OpMode | None = None
        self.pace = Pace()
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
        self.nodes = Nodes()
        # The collective that this thread has just begun.
        self.collective: tuple[str, list[weakref.ref[torch.Tensor]]] | None = None
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
            if recorder.still is not None:
                recorder.still.wait_here()
            if recorder.halted:
                recorder.leave(self)
            return self._unrecorded(operator, args, kwargs)
        if self.reading == SILENT:
            result = self._unrecorded(operator, args, kwargs)
            if operator.empty:
                recorder.memory.poisoned(result)
            return result
        if self.nodes.noted:
            self.nodes.settle()
        node = _current_autograd_node()
        caller = sys._getframe().f_back
        if caller is None and node is None:
            return self._elsewhere(operator, args, kwargs)
        if recorder.compiled_steps and node is None and not self.stack:
            recorder.end_compiled_steps(self)

        lockstep = recorder.lockstep
        if lockstep is not None:
            recorder.together(self)
        index = recorder.next_index()
        cause = None
        flags = flags_of(args, kwargs) if operator.random else 0
        kind = KIND_OP
        stack = self.stack
        causes = self.causes
        if node is not None and threading.get_ident() != self._ident:
            causes = self._causes_here()
        elif self.leaving:
            self.settle(caller)
        if node is not None:
            phase = BACKWARD
            module, cause = self._of_node(node, causes)
            if stack and stack[-1][1]:
                module = stack[-1][0]
                flags |= RECOMPUTE
            if recorder.locator.in_backward_code(caller):
                flags |= BACKWARD_CODE
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
        bound = (index, module, operator)
        if _get_sequence_nr() != causes.made:
            causes.bind(bound)
            if self.name:
                graphs.mark(args, self)
        causes.last = bound

        site = recorder.site(module, operator.name)
        counts = self.counts
        place = site * 8 + phase
        count = counts.get(place, 0)
        counts[place] = count + 1
        locator = recorder.locator
        code = locator.number(caller) if causes is self.causes else self._call_site(caller)

        memory = recorder.memory
        stand_in = False
        readable = not operator.blind
        filled = None
        if memory.unwritten:
            if operator.partial and memory.in_pieces(operator, args):
                tainted, readable = memory.piece(operator, args, kwargs)
                filled = args[0] if readable else None
            else:
                tainted = memory.read_by(operator, args, kwargs)
            if tainted:
                flags |= TAINTED
                stand_in = traced()
                readable = readable and not stand_in
        attended = self.reading == READ
        captured = (
            attended
            and bool(recorder.wanted)
            and recorder.wants(phase, module, operator.name, count, self)
        )
        if captured and recorder.take_inputs(index, operator, args, kwargs, filled):
            flags |= INPUTS
        read = attended and readable
        read = read and (phase != OPTIMIZER or recorder.optimizer_ops or captured)
        if lockstep is not None:
            # What is asked for is kept as it is; what is not read is not compared.
            wanted = read and not captured
            held = None
            if wanted:
                held = lockstep.holds(index, operator, args, kwargs, memory, filled)

        given = recorder.given
        if given is not None:
            key = given.key(self, phase, module, operator.name, count)
            exactly = given.before(key, operator, func, args, kwargs) if read else None

        if flags & RANDOM and recorder.draws.by_line:
            recorder.draws.seed_torch(caller, _device_of(args, kwargs))
        result = operator.call(*args, **kwargs) if kwargs else operator.call(*args)

        if operator.chooses:
            self.nodes.made(result)
        if lockstep is not None:
            lockstep.ran(held)
        row = (index, kind, self.step, phase, self.thread, site, count, code, cause, flags)
        if operator.empty or operator.collective or (operator.view and not stand_in):
            recorder.add_event(row)
            if lockstep is not None:
                lockstep.done(index)
            if operator.collective:
                recorder.collectives.begun(self, operator.name, list(tensors_in(args)))
                return result
            operator.unread += 1
            if operator.empty:
                memory.made(result)
            return result
        values = recorder.values
        copied = [] if operator.copied is None else late.sources(operator, args, kwargs)
        if copied:
            # What is there only later is neither kept nor replaced.
            given = values = None
        if given is not None or values is not None:
            made = [written[0] for written in operator.outputs(args, kwargs, result)]
        if given is not None:
            given.drawn(kind, key, operator, args, made)
        if operator.many and read:
            with recorder.readings.together():
                self._outputs(
                    operator, index, args, kwargs, result, copied, read, captured, readable
                )
        else:
            self._outputs(operator, index, args, kwargs, result, copied, read, captured, readable)
        if read and values is not None:
            values.made(index, self.step, phase, site, operator, args, made)
        if given is not None and read:
            given.after(index, key, made, exactly, (operator, func, args, kwargs))
        # Last, or a process that is killed might leave an event without what it gave.
        recorder.add_event(row)
        if lockstep is not None:
            lockstep.done(index)
        if operator.scratch and (recorder.wanted or lockstep is not None):
            memory.noise(result[at] for at in operator.scratch)
        if stand_in:
            # What is computed with a stand-in for a value is one too.
            written = [args[at] for at, _ in operator.writes if at < len(args)]
            for tensor in tensors_in([result, written]):
                memory.note(tensor)
        return result

    def _unrecorded(self, operator: Operator, args: Any, kwargs: Any) -> Any:
        """Run an operator that is no event, but computes what it would without us all the same."""
        if self.nodes.noted:
            self.nodes.settle()
        result = operator.call(*args, **kwargs) if kwargs else operator.call(*args)
        if operator.chooses:
            self.nodes.made(result)
        return result

    def _elsewhere(self, operator: Operator, args: Any, kwargs: Any) -> Any:
        """Run an operator in a thread that native code started and gave this thread's modes.

        So do process groups and `torch.jit.fork`. When it comes is chance: it is no event.
        """
        result = self._unrecorded(operator, args, kwargs)
        memory = self.recorder.memory
        self.recorder.passed_by.elsewhere()
        if operator.empty:
            memory.poisoned(result)
        elif memory.unwritten:
            for tensor, _, _ in operator.outputs(args, kwargs, result):
                memory.wrote(tensor)
        return result

    def _outputs(
        self,
        operator: Operator,
        index: int,
        args: Any,
        kwargs: Any,
        result: Any,
        copied: list[torch.Tensor],
        read: bool,
        keep: bool,
        whole: bool,
    ) -> None:
        """Fingerprint what the operator wrote: its mutable arguments, then its fresh results."""
        recorder = self.recorder
        if type(result) is _Tensor and operator.returns and not operator.writes and not copied:
            recorder.add_tensor(index, 0, result, read, keep, whole)
            return
        outputs = operator.outputs(args, kwargs, result)
        for position, (tensor, listed, label) in enumerate(outputs):
            named = listed and read and self.optimizing
            name = self._of_parameter(tensor) if named else label
            bits = copied[position] if copied and tensor.is_cpu else None
            recorder.add_tensor(index, position, tensor, read, keep, whole, name, bits)

    def look(self) -> None:
        """See what operators are from here on, in the step that begins."""
        before, self.reading = self.reading, self.recorder.focus.begins(self.name, self.step)
        if before == SILENT != self.reading:
            # What was made meanwhile belongs to no event.
            self.causes.made = _get_sequence_nr()

    def new_step(self) -> None:
        """Count a step, restart the call counts; forget nodes that no recent graph can hold."""
        self.step += 1
        self.counts.clear()
        self.look()
        # An optimizer's step that raised, and was caught, had no end.
        self.optimizing = 0
        for causes in self.all_causes():
            causes.forget()


def _device_of(args: Any, kwargs: dict[str, Any] | None) -> str:
    """The device that an operator draws on."""
    asked = kwargs.get("device") if kwargs else None
    return str(asked or next((t.device for t in tensors_in(args)), "cpu"))
