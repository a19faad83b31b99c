"""The recorder of one run: starts and stops capture, numbers events, fingerprints tensors."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch

from repro_audit.capture.collectives import Collectives
from repro_audit.capture.dispatch import OpMode, paused, unseen_by_dynamo
from repro_audit.capture.draws import Draws
from repro_audit.capture.focus import Focus
from repro_audit.capture.generators import Generators
from repro_audit.capture.given import Given
from repro_audit.capture.inputs import take_inputs
from repro_audit.capture.locations import Locator
from repro_audit.capture.lockstep import Lockstep
from repro_audit.capture.memory import UnwrittenMemory
from repro_audit.capture.modules import OtherRoots
from repro_audit.capture.operators import Operator
from repro_audit.capture.outside import Loaders
from repro_audit.capture.readings import Readings
from repro_audit.capture.sink import Kept, Row, Sink
from repro_audit.capture.steps import StepLimitExit, Steps
from repro_audit.capture.stillness import Stillness
from repro_audit.capture.threads import Threads
from repro_audit.capture.unseen import Unseen
from repro_audit.capture.values import Values
from repro_audit.capture.weights import Weights
from repro_audit.model import Interval, Level, SiteKey
from repro_audit.model.codes import (
    DATA,
    FORWARD,
    KIND_BATCH,
    KIND_MODULE,
    KIND_OP,
    KIND_PARAM,
    KIND_RNG,
    PHASES,
    RNG,
    TAINTED,
)

_FLUSH_EVERY = 4096


class Recorder:
    """Records one run of a program into `sink`, from `start()` to `stop()`.

    Call sites below one of the directories `bases` are shown relative to it.
    Steps are counted by what the program does; without `automatic`, by `end_step()` alone.
    `steps` ends the program after that many steps (a `SystemExit` raised where the step ends, so
    that `finally` blocks run). At level `modules` events are what modules return, and its
    gradients; operators are events in an `interval` alone. `optimizer_ops` fingerprints what every
    operator inside an optimizer's step writes, not only the parameters afterwards. `capture` names
    events whose inputs are fingerprinted and whose outputs are kept. `poison` fills `empty*`
    memory. `ledger` records each draw from Python's and NumPy's global generators; with `by_line`
    each line draws from a generator of its own.
    `samples` elements of each output are kept, and all within `budget` bytes, with `starting_only`
    of what the run starts from alone; `given` puts a recording's values in place of the run's own.
    `on_progress(steps, events)` is called at each step and every few thousand events, `on_fork` in
    a fork of this process, which otherwise records no more. A sink in lock-step with another
    replica's ends the program, as the limit on steps does, where the two come apart; `on_halt` is
    called before that.
    Not reentrant; one recorder a process.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        bases: tuple[str, ...],
        steps: int | None = None,
        automatic: bool = True,
        level: Level = "ops",
        interval: Interval | None = None,
        optimizer_ops: bool = False,
        capture: tuple[SiteKey, ...] = (),
        poison: int | None = None,
        ledger: bool = False,
        by_line: bool = False,
        samples: int = 0,
        budget: int = 0,
        starting_only: bool = False,
        given: Given | None = None,
        on_progress: Callable[[int, int], None] = lambda steps, events: None,
        on_fork: Callable[[], None] | None = None,
        on_halt: Callable[[], None] = lambda: None,
    ) -> None:
        self.sink = sink
        self.lockstep = sink if isinstance(sink, Lockstep) else None
        # True once the replicas came apart, and the trace has all that it is to have.
        self.halted = False
        self._halting = threading.Lock()
        self._on_halt = on_halt
        self._main_left = self._stopping = False
        self.active = False
        self.step = 0
        # Set at the end of the process.
        self.still: Stillness | None = None
        self.optimizer_ops = optimizer_ops
        self._level = level
        self._poison = poison
        self._look_at(capture, interval)
        self.operators: dict[Any, Operator] = {}
        self.locator = Locator(bases, sink.code)
        self.memory = UnwrittenMemory(poison=poison)
        # Roots that a thread other than the main one ran, with that thread's name.
        self.roots = OtherRoots()
        self.threaded = False
        # True once there are other processes, whose events an order in time tells apart.
        self.clocked = False
        self.unobserved: Counter[str] = Counter()
        self.readings = Readings(sink, self.unobserved)
        if self.lockstep is not None:
            self.lockstep.reads(self.readings)
        self.values = (
            Values(
                cast(Kept, sink),
                self.readings,
                samples=samples,
                budget=budget,
                starting_only=starting_only,
            )
            if samples
            else None
        )
        self.given = given
        self._on_progress = on_progress
        # When the first step ended that did, and the last; and how many lie between.
        self._paced: tuple[float, float, int] | None = None
        self._on_fork = self.abandon if on_fork is None else on_fork
        self._indices = itertools.count()
        self._events = 0
        # The first event goes to the file at once: from then on it shows that the process was here.
        self._flush_at = 0
        self._sites: dict[tuple[str, str], int] = {}
        self._local = threading.local()
        self._unnumbered = itertools.count(1)
        self._generators = Generators(self)
        self.draws = Draws(self, ledger=ledger, by_line=by_line)
        self.passed_by = Unseen()
        self._steps = Steps(self, limit=steps, automatic=automatic)
        self.weights = Weights(self)
        self._loaders = Loaders(self)
        self._threads = Threads(self)
        self.collectives = Collectives(self)

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: enter the mode in this thread, hook modules, optimizers, loaders, generators."""
        self.active = True
        unseen_by_dynamo(OpMode.__torch_dispatch__)
        self.main = self.enter_thread("", 0)
        self._steps.install()
        self._loaders.install()
        self.passed_by.install()
        self._threads.install()
        self.collectives.install()
        self._generators.install()
        self.draws.install()
        os.register_at_fork(after_in_child=self._on_fork)
        self.generator_states()

    def stop(self, *, at_once: bool = False) -> None:
        """End: record generator states a last time, unhook everything, flush. Idempotent.

        Where it is to be `at_once` the models that are still there are not read once more.
        """
        if not self.active:
            return
        self._stopping = True
        if not at_once:
            self.weights.weigh_all()
        self.generator_states()
        self.active = False
        self.draws.uninstall()
        self._generators.uninstall()
        self.collectives.uninstall()
        self._threads.uninstall()
        self._loaders.uninstall()
        self.passed_by.uninstall()
        self._steps.uninstall()
        self.leave_thread()
        self.readings.settle(wait=True)
        if self.lockstep is not None:
            self.lockstep.finish()
        self.flush()

    def keep_still(self) -> None:
        """Let no other thread begin an operator again: Python is about to end the process."""
        self.still = Stillness(OpMode.__torch_dispatch__.__code__)
        self.still.come()

    @property
    def events(self) -> int:
        """Events recorded so far."""
        caught = self.lockstep is not None and self.lockstep.caught
        return self.lockstep.left if self.lockstep is not None and caught else self._events

    @property
    def caught(self) -> bool:
        """True once the events of two replicas in lock-step came apart."""
        return self.lockstep is not None and self.lockstep.caught

    @property
    def caught_in_main(self) -> bool:
        """True if that was in the main thread."""
        return self.lockstep is not None and self.lockstep.in_main

    @property
    def steps(self) -> int:
        """Steps that have ended, and one more if the last one has begun."""
        return self._steps.ended()

    @property
    def unseen(self) -> dict[str, int]:
        """How much was recorded without its values, or not at all, by what it was."""
        return self.passed_by.counts(self.operators.values())

    @property
    def undrawn(self) -> list[int]:
        """The seedings of generators that nobody has drawn from."""
        return self._generators.undrawn()

    @property
    def step_seconds(self) -> float | None:
        """What a step of the main thread takes, the first left out; None where there is but one."""
        first, last, between = self._paced or (0.0, 0.0, 0)
        return (last - first) / between if between else None

    @property
    def stopped_at_limit(self) -> bool:
        """True once the program was told to end: after its last step, or where replicas part."""
        return self._steps.limit_reached or self.halted

    def numpy_imported(self) -> None:
        """Hook NumPy's generators, imported after torch."""
        self._generators.install_numpy()
        self.draws.install_numpy()

    def unlimited(self) -> None:
        """Let the program make as many steps as it will."""
        self._steps.limit = None

    def next_thread(self) -> tuple[str, int]:
        """Name of the next thread that the calling one starts, and the step that it begins in."""
        mode = self.mode()
        if mode is None:
            # Started by a thread that is not observed: in the order in which that happens.
            return f"unseen-{next(self._unnumbered)}", self.step
        mode.started += 1
        return f"{mode.name}.{mode.started}" if mode.name else str(mode.started), mode.step

    def enter_thread(self, name: str, step: int) -> OpMode:
        """Record the calling thread too, as the thread of that name, begun in `step`."""
        mode = OpMode(self, name, step)
        self.threaded |= bool(name)
        # A task may be called inside what is recorded already: its own thread's, then.
        mode.under = under = getattr(self._local, "mode", None)
        if under is not None:
            under.muted += 1
        self._local.mode = mode
        if self._dispatches:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return mode

    def leave_thread(self) -> None:
        """Stop recording the calling thread: it has ended."""
        mode = getattr(self._local, "mode", None)
        if mode is None:
            return
        under = self._local.mode = mode.under
        if under is not None:
            under.muted -= 1
        if "thread" in mode.__dict__:
            self.sink.end(mode.thread)
        # A program stopped inside a mode of its own has that one on top; ours then stays, inert.
        if torch.utils._python_dispatch._get_current_dispatch_mode() is mode:
            mode.__exit__(None, None, None)  # type: ignore[union-attr]

    def mode(self) -> OpMode | None:
        """The calling thread's mode; on an autograd device thread, that of its caller."""
        mode: OpMode | None = getattr(self._local, "mode", None)
        if mode is None:
            current = torch.utils._python_dispatch._get_current_dispatch_mode()
            mode = current if isinstance(current, OpMode) else None
        return mode

    def abandon(self) -> None:
        """Record no more: this process is a fork, the trace its parent's."""
        self.active = False
        self.sink.discard_connection()

    def record_into(
        self,
        sink: Sink,
        capture: tuple[SiteKey, ...],
        interval: Interval | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """In a fork: go on as another process, whose events go into `sink`.

        The calling thread is the only one and its main one; its steps go on from where they are.
        """
        before = self.mode()
        step = self.step if before is None else before.step
        # What is below it on torch's stack of modes hears of each operator still.
        while before is not None:
            before.muted += 1
            before = before.under
        self._local.mode = None
        self.sink = sink
        self.lockstep = None
        self._on_progress = on_progress
        self._look_at(capture, interval)
        self._indices = itertools.count()
        self._events = self._flush_at = 0
        self._sites.clear()
        self.readings.use(sink)
        if self.values is not None:
            self.values.use(cast(Kept, sink), self.readings)
        self.locator.forget(sink.code)
        self.unobserved.clear()
        self._generators.forget()
        self.passed_by.forget(self.operators.values())
        self.main = self.enter_thread("", step)

    # -- events ---------------------------------------------------------------------------------

    def next_index(self) -> int:
        """The next event's place in the run; events of all threads share one order."""
        return next(self._indices)

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""
        try:
            return self._sites[module, op]
        except KeyError:
            number = self._sites[module, op] = self.sink.site(module, op)
            return number

    def add_event(self, row: Row) -> None:
        """Take an event row; write out every few thousand."""
        self.sink.events.append(row)
        self._events += 1
        if self.clocked:
            self.sink.clock.append((row[0], time.monotonic_ns()))
        if self._events >= self._flush_at and row[1] != KIND_RNG:
            self._flush_at = self._events + _FLUSH_EVERY
            self.flush()

    def flush(self) -> None:
        """Write out what there is; digests that a device has not given yet follow later."""
        self.readings.settle()
        if self.values is not None:
            self.values.settle()
        self.sink.flush()
        self._on_progress(self.step, self._events)

    def add_tensor(
        self,
        index: int,
        position: int,
        tensor: torch.Tensor,
        read: bool,
        keep: bool,
        whole: bool,
        name: str | None = None,
    ) -> None:
        """Record one output of event `index`; fingerprint it if `read`, keep its bits if `keep`.

        `whole` says that the operator wrote all of it.
        """
        self.readings.take(self.sink.outputs, index, position, tensor, read=read, name=name)
        if whole and self.memory.unwritten and tensor.layout is torch.strided:
            self.memory.wrote(tensor)
        if self.lockstep is not None and read and not keep:
            self.lockstep.wrote(index, position, tensor)
        if keep:
            self.readings.keep(index, position, tensor)

    def add(
        self,
        kind: int,
        phase: int,
        op: str,
        outputs: list[tuple[str | None, torch.Tensor | bytes]],
        *,
        module: str = "",
        code: int | None = None,
    ) -> int | None:
        """Record an event that is no operator: tensors or ready digests, named, in order.

        Returns its index; None where nothing is recorded.
        """
        mode = self.mode()
        if not self.active or mode is None:
            return None
        if kind != KIND_RNG:
            self.together(mode)
        index, site, count = self._place(mode, phase, module, op)
        keep = bool(self.wanted) and self.wants(phase, module, op, count, mode)
        flags = 0
        given, values = self.given, self.values
        if given is not None:
            key = given.key(mode, phase, module, op, count)
            given.enters(kind, key, outputs)
        with paused():
            for position, (name, value) in enumerate(outputs):
                if isinstance(value, bytes):
                    self.readings.value(self.sink.outputs, index, position, value, name)
                    continue
                # A cache of `torch.empty` may never be written, nor read, to its end.
                read = kind != KIND_PARAM or self._written(value)
                flags |= 0 if read else TAINTED
                self.readings.take(self.sink.outputs, index, position, value, read=read, name=name)
                if keep:
                    self.readings.keep(index, position, value)
                elif self.lockstep is not None and read:
                    self.lockstep.wrote(index, position, value)
                if values is not None and read:
                    starting = kind == KIND_BATCH or (mode.step == count == 0)
                    values.take(
                        index, position, value, step=mode.step, phase=phase, starting=starting
                    )
                if given is not None and read and kind == KIND_PARAM:
                    given.parameter(index, key, value)
        self.add_event((index, kind, mode.step, phase, mode.thread, site, count, code, None, flags))
        if self.lockstep is not None and kind != KIND_RNG:
            self.lockstep.done(index)
        self._passed(mode, phase, module, op, count)
        return index

    def _written(self, value: torch.Tensor) -> bool:
        return isinstance(value, torch.nn.Parameter) or not self.memory.holds(value)

    def module_event(
        self,
        mode: OpMode,
        phase: int,
        module: str,
        op: str,
        outputs: list[tuple[str | None, torch.Tensor, bytes | None]],
        *,
        code: int | None,
        cause: int | None,
        flags: int,
    ) -> int:
        """Record what a module gave, or its gradient; digests where they are ready."""
        self.together(mode)
        index, site, count = self._place(mode, phase, module, op)
        for position, (name, tensor, digest) in enumerate(outputs):
            self.readings.take(self.sink.outputs, index, position, tensor, name=name, digest=digest)
            if self.lockstep is not None:
                self.lockstep.wrote(index, position, tensor)
            if self.values is not None:
                step = mode.step
                self.values.take(index, position, tensor, step=step, phase=phase, starting=False)
        self.add_event(
            (index, KIND_MODULE, mode.step, phase, mode.thread, site, count, code, cause, flags)
        )
        if self.lockstep is not None:
            self.lockstep.done(index)
        self._passed(mode, phase, module, op, count)
        return index

    def _place(self, mode: OpMode, phase: int, module: str, op: str) -> tuple[int, int, int]:
        """Index, site and call index of an event that is no operator."""
        site = self.site(module, op)
        place = site * 8 + phase
        count = mode.counts.get(place, 0)
        mode.counts[place] = count + 1
        return self.next_index(), site, count

    def _passed(self, mode: OpMode, phase: int, module: str, op: str, count: int) -> None:
        if self.focus.modules:
            self.focus.passed(SiteKey(mode.step, PHASES[phase], module, op, count, mode.name), mode)

    def batch(
        self, op: str, outputs: list[tuple[str | None, torch.Tensor | bytes]], code: int | None
    ) -> None:
        """Record what came in from outside."""
        if outputs:
            self.add(KIND_BATCH, DATA, op, outputs, code=code)

    def received(self, op: str, tensors: list[torch.Tensor], code: int | None) -> None:
        """Record what a collective gave this process, once it is there."""
        mode = self.mode()
        if mode is None or not tensors:
            return
        module = mode.stack[-1][0] if mode.stack else ""
        named: list[tuple[str | None, torch.Tensor | bytes]] = [(None, t) for t in tensors]
        base = op.rpartition(".")[0]
        self.add(KIND_OP, FORWARD, f"{base}.result", named, module=module, code=code)

    def generator(self, op: str, digest: bytes, code: int | None = None) -> int | None:
        """Record a generator's state, or the seed it was given; returns the event's index."""
        return self.add(KIND_RNG, RNG, op, [(None, digest)], code=code)

    def draw(self, op: str, code: int | None) -> None:
        """Record that a number is drawn from a global generator."""
        self.add(KIND_RNG, RNG, op, [], code=code)

    def generator_states(self) -> None:
        """Record the states of the process's global generators."""
        self._generators.states()

    def end_step(self) -> None:
        """Close the calling thread's step: generator states, fresh call counts, progress."""
        self.generator_states()
        mode = self.mode()
        if mode is not None:
            mode.new_step()
            self.step = max(self.step, mode.step)
            if not mode.name:
                now = time.monotonic()
                first, _, between = self._paced or (now, now, -1)
                self._paced = (first, now, between + 1)
        self._on_progress(self.step, self._events)

    # -- lock-step ------------------------------------------------------------------------------

    def together(self, mode: OpMode) -> None:
        """Before an event: let the other replica come near, and end here where the two parted."""
        if self.lockstep is None or not self.lockstep.room(mode.name) or self._stopping:
            return
        with self._halting:
            if not self.halted:
                self.halted = True
                self._on_halt()
        self._main_left |= not mode.name
        # Of another thread Python tells nothing where it ends by this very class.
        raise SystemExit(0) if mode.name else StepLimitExit(0)

    def leave(self, mode: OpMode) -> None:
        """End the main thread here where another one saw the replicas part."""
        if self.halted and not mode.name and not self._main_left:
            self._main_left = True
            raise StepLimitExit(0)

    # -- the zoom -------------------------------------------------------------------------------

    def attend(self, capture: tuple[SiteKey, ...], interval: Interval | None) -> None:
        """Look at this from here on: a process learns after its start which of the run's it is."""
        dispatched = self._dispatches
        self._look_at(capture, interval)
        main = self.main
        if self._dispatches and not dispatched:
            main.__enter__()  # type: ignore[no-untyped-call]
        main.look()

    def _look_at(self, capture: tuple[SiteKey, ...], interval: Interval | None) -> None:
        self.wanted = {
            (key.step, key.phase, key.module, key.op, key.call_index, key.thread) for key in capture
        }
        self.focus = Focus(self._level, interval)
        self._dispatches = self.focus.dispatches(poison=self._poison)

    def wants(self, phase: int, module: str, op: str, count: int, mode: OpMode) -> bool:
        """True if this event's tensors were asked for."""
        return (mode.step, PHASES[phase], module, op, count, mode.name) in self.wanted

    def take_inputs(self, index: int, operator: Operator, args: Any, kwargs: Any) -> bool:
        """Keep what the operator of event `index` is given; False where that is what it returns."""
        return take_inputs(self, index, operator, args, kwargs)
