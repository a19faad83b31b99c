"""The recorder of one run: starts and stops capture, numbers events, fingerprints tensors."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from repro_audit import engine
from repro_audit.capture.collectives import Collectives
from repro_audit.capture.composites import Composites
from repro_audit.capture.dispatch import OpMode
from repro_audit.capture.draws import Draws
from repro_audit.capture.events import Events
from repro_audit.capture.forks import tell_of_forks
from repro_audit.capture.generators import Generators
from repro_audit.capture.given import Given
from repro_audit.capture.guards import unseen_by_dynamo
from repro_audit.capture.locations import Locator
from repro_audit.capture.modules import FirstSeen
from repro_audit.capture.operators import Operator
from repro_audit.capture.outside import Loaders
from repro_audit.capture.replaced import Hooks
from repro_audit.capture.sink import Sink
from repro_audit.capture.states import States
from repro_audit.capture.steps import StepLimitExit, Steps
from repro_audit.capture.stillness import Stillness
from repro_audit.capture.threads import Threads
from repro_audit.capture.unseen import Unseen
from repro_audit.capture.weights import Weights
from repro_audit.model import Interval, Level, SiteKey


class Recorder(Events):
    """Records one run of a program into `sink`, from `start()` to `stop()`.

    Call sites below one of the directories `bases` are shown relative to it.
    Steps are counted by what the program does; without `automatic`, by `end_step()` alone. `steps`
    ends the program after that many steps (a `SystemExit` raised where the step ends, so that
    `finally` blocks run), `cut` as an optimizer is about to make that step (from 0): what comes
    between two steps, such as saving, has then been done. With `beginnings` weights and generator
    states are recorded whenever a root module is called, and before each optimizer step what the
    optimizer keeps, and its options. `idle` are optimizers that no step waits for, by the order in
    which they are made, `roots` what root modules are called, as another run's `idle` and
    `called_roots` tell. At level `modules` events are what modules return, and its
    gradients; operators are events in an `interval` alone. `optimizer_ops` fingerprints what every
    operator inside an optimizer's step writes, not only the parameters afterwards. `capture` names
    events whose inputs are fingerprinted and whose outputs are kept. `poison` fills `empty*`
    memory. `ledger` records each draw from Python's and NumPy's global generators; with `by_line`
    each line draws from a generator of its own. `samples` elements of each output are kept, and all
    within `budget` bytes, with `starting_only` of what the run starts from alone; `given` puts a
    recording's values in place of the run's own. `on_progress(steps, events)` is called at each
    step and every few thousand events, `on_fork` in a fork of this process, which otherwise records
    no more. A sink in lock-step with another replica's ends the program, as the limit on steps
    does, where the two come apart; `on_halt` is called before that.
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
        beginnings: bool = False,
        cut: int | None = None,
        idle: tuple[int, ...] = (),
        roots: tuple[tuple[str, str], ...] = (),
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
        super().__init__(
            sink,
            level=level,
            interval=interval,
            capture=capture,
            poison=poison,
            samples=samples,
            budget=budget,
            starting_only=starting_only,
            given=given,
            on_progress=on_progress,
        )
        # True once the replicas came apart, and the trace has all that it is to have.
        self.halted = False
        self._halting = threading.Lock()
        self._on_halt = on_halt
        self._main_left = self._stopping = False
        # Set at the end of the process.
        self.still: Stillness | None = None
        self.optimizer_ops = optimizer_ops
        self.beginnings = beginnings
        self.roots_given = roots if beginnings else None
        self.operators: dict[Any, Operator] = {}
        self.locator = Locator(bases, sink.code)
        # Roots that a thread other than the main one ran, with that thread's name.
        self.roots: FirstSeen[torch.nn.Module] = FirstSeen()
        self.threaded = False
        # When the first step ended that did, and the last; and how many lie between.
        self._paced: tuple[float, float, int] | None = None
        self.on_fork = self.abandon if on_fork is None else on_fork
        self._local = threading.local()
        self._unnumbered = itertools.count(1)
        self._generators = Generators(self)
        self.draws = Draws(self, ledger=ledger, by_line=by_line)
        self.passed_by = Unseen(self._before_capture)
        self._steps = Steps(self, limit=steps, cut=cut, idle=idle, automatic=automatic)
        # Not empty where optimizers' compiled steps have run.
        self.compiled_steps = self._steps.compiled
        self.end_compiled_steps = self._steps.end_compiled
        # True once a parameter was seen in memory that processes share.
        self.shared = False
        self.weights = Weights(self)
        self.states = States(self)
        self._loaders = Loaders(self)
        self._threads = Threads(self)
        self.collectives = Collectives(self)
        self._composites = Composites()
        # What gives back what `start` took.
        self._hooked = ExitStack()

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: enter the mode in this thread, hook modules, optimizers, loaders, generators."""
        self.active = True
        unseen_by_dynamo(OpMode.__torch_dispatch__)
        self.main = self.enter_thread("", 0)
        self._hooked.callback(self.leave_thread)
        of_modules = self._steps, self.states, self._loaders, self.passed_by
        of_functions = self._composites, self._generators, self.draws
        hooks: Hooks
        for hooks in (*of_modules, self._threads, self.collectives, *of_functions):
            # First, so that half of an installation is taken back, too.
            self._hooked.callback(hooks.uninstall)
            hooks.install()
        tell_of_forks(self)
        self.generator_states()

    def stop(self, *, at_once: bool = False) -> None:
        """End: record generator states a last time, unhook everything, flush. Idempotent.

        Where it is to be `at_once` the models that are still there are not read once more. Raises
        what the sink does (TraceError: a full disk); everything is unhooked then as well.
        """
        if not self.active:
            return
        self._stopping = True
        try:
            with self._of_a_failed_device():
                if not at_once:
                    self._steps.settle()
                    self.weights.weigh_all()
                    self.states.end()
                self.generator_states()
        finally:
            self.active = False
            self._hooked.close()
        with self._of_a_failed_device():
            self.readings.settle(wait=True)
        if self.lockstep is not None:
            self.lockstep.finish()
        with self._of_a_failed_device():
            self.flush()
        # Where that did not come so far.
        self.sink.flush()

    def _before_capture(self) -> None:
        """Fetch what there is, so that nothing is left to be asked for in a graph's capture."""
        if self.active:
            self.readings.settle(wait=True)
            self.flush()

    @contextmanager
    def _of_a_failed_device(self) -> Iterator[None]:
        """A program may end by making its device fail, of which nothing more is to be learned."""
        try:
            yield
        except RuntimeError as error:
            if not engine.failed():
                raise
            self.unobserved[f"a device that failed: {str(error).splitlines()[0]}"] += 1
            self.readings.leave()

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
    def idle(self) -> list[int]:
        """Optimizers that made no step, by the order in which they were made."""
        return self._steps.idle()

    @property
    def called_roots(self) -> list[tuple[str, str]]:
        """What root modules of the main thread were called, by the shapes of their trees."""
        return self.main.names.called()

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
        # What it is before anybody draws tells of whoever does.
        self._generators.states("numpy")

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
        mode.nodes.settle()
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
        self._on_progress = on_progress
        self._look_at(capture, interval)
        self._use(sink)
        self.locator.forget(sink.code)
        self.unobserved.clear()
        self.shared = False
        self._generators.forget()
        self.passed_by.forget(self.operators.values())
        self.main = self.enter_thread("", step)

    # -- steps ----------------------------------------------------------------------------------

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
