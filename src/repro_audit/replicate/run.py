"""One run in one of its processes: controls, capture and trace around whatever runs there."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from repro_audit.control.imports import when_imported
from repro_audit.errors import EXIT_INTERNAL, ReproAuditError, UsageError
from repro_audit.model import Interval, Plan
from repro_audit.replicate import controls, ours
from repro_audit.replicate.closing import closing_of, manifest_of, rank_now, started_by
from repro_audit.replicate.lineage import Lineage, Member
from repro_audit.replicate.link import Link
from repro_audit.replicate.pools import Pools
from repro_audit.replicate.processes import Processes
from repro_audit.replicate.reads import Reads
from repro_audit.replicate.stopwatch import Stopwatch

if TYPE_CHECKING:
    from repro_audit.capture import Recorder
    from repro_audit.capture.given import Given
    from repro_audit.replicate.endstate import EndState
    from repro_audit.trace import Writer

_exit = os._exit


class Run:
    """The life of one run in one process, from its plan to its closing record.

    In the program's own process (`member.name` is '') the trace is there from the start; in one
    that the program starts, from its first event on.
    """

    def __init__(self, plan: Plan, member: Member) -> None:
        self.plan = plan
        self.recorder: Recorder | None = None
        self.writer: Writer | None = None
        self.lineage = Lineage(member, self._thread)
        self.pools = Pools(self)
        self.processes = Processes(self, self.lineage)
        self.reads = Reads(since=plan.since, own=str(Path(plan.progress).parent))
        # Of a pool's process: the task that it does, and whether it has begun to do tasks.
        self._task: str | None = None
        self._working = False
        self._rank: int | None = None
        self._end_state: EndState | None = None
        self._is_fork = False
        self._recorded: Recorder | None = None
        self._link = None if plan.lockstep is None or member.name else Link(plan.lockstep)
        self._caught = False
        self._given: Given | None = None
        self._math_attention = False
        timed = plan.stopwatch is not None and not member.name
        self.stopwatch = Stopwatch(str(plan.stopwatch), plan.steps) if timed else None

    @property
    def member(self) -> Member:
        """Which of the run's processes this is."""
        return self.lineage.member

    @property
    def observed(self) -> bool:
        """Whether what this process does is recorded."""
        return self.plan.observe and self.member.observed

    @property
    def stopped_at_limit(self) -> bool:
        """Whether the program was told to end: after its last step, or where replicas part."""
        told = self.recorder is not None and self.recorder.stopped_at_limit
        timed = self.stopwatch is not None and self.stopwatch.limit_reached
        return told or timed or self._caught

    def prepare(self) -> None:
        """Set the controls, and arm capture for the moment torch is imported."""
        plan = self.plan
        # What is registered first is called last: the program may wait for its threads until then.
        atexit.register(self._keep_still)
        if self.observed and not self.member.name:
            self.writer = self._new_writer()
        controls.begin(plan, self.member)
        self.reads.install()
        self.processes.install()
        self.pools.install()
        when_imported("torch", self._torch_imported, in_forks=True)
        when_imported("numpy.random", self._numpy_imported, in_forks=True)

    def finish(self, outcome: str, code: int | None, error: str | None) -> None:
        """Write the end state, the manifest and the closing record: the process is at its end."""
        self._finish(outcome, code, error, at_once=self._is_fork)

    def _keep_still(self) -> None:
        if self._recorded is not None:
            self._recorded.keep_still()

    def leave(self, how: str, code: int | None = None) -> bool:
        """The same for a process that ends without more ado; True if it left something.

        What Python would do at its end is left undone, as it is plainly: no garbage is collected,
        and so the models are not read once more.
        """
        try:
            return self._finish(how, code, None, at_once=True)
        except Exception as error:
            self.end(error)

    def end(self, error: BaseException) -> NoReturn:
        """End the process for a reason that is not the program's, and leave word of it."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        code = error.exit_code if isinstance(error, ReproAuditError) else EXIT_INTERNAL
        with contextlib.suppress(OSError, ValueError):
            if not isinstance(error, ReproAuditError):
                traceback.print_exception(error)
            if not ours.leave(self.plan, error, code):
                print(f"repro-audit: {error}", file=sys.stderr)
            sys.stderr.flush()
        if self.member.name:
            # The program might wait for this process for ever.
            with contextlib.suppress(OSError):
                os.killpg(self.member.group, signal.SIGKILL)
        _exit(code)

    def arrive(self) -> None:
        """Tell the run's log of this process, and be what it is called there."""
        with self._logged():
            self.lineage.arrive()

    def tell(self, what: str, member: Member) -> None:
        """Write a line into the run's log of processes."""
        with self._logged():
            self.lineage.tell(what, member)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot write {self.member.log}: {error.strerror}"
            self.end(UsageError(f"{reason}. Make room there, or let the directory be."))

    # -- other processes ------------------------------------------------------------------------

    def clock(self) -> None:
        """Before another process begins: from here on an order in time tells what came first."""
        if self.recorder is not None:
            self.recorder.clocked = True

    def hold(self) -> None:
        """Before a fork: no thread is to be in the middle of writing."""
        if self.writer is not None:
            self.writer.hold()

    def release(self) -> None:
        """After a fork, in the parent."""
        if self.writer is not None:
            self.writer.release()

    def forked(self, member: Member) -> None:
        """Be another process from here on: a fork of the one before."""
        self._is_fork = True
        if self._link is not None:
            self._link.close()
            self._link = None
        self.reads.stale.clear()
        self._seed_python(member)
        if self._end_state is not None:
            self._end_state.forget()
        if self.writer is not None:
            self.writer.discard_connection()
            self.writer = None
        self.lineage.become(member)
        if self.recorder is not None and self.recorder.active:
            self._record_anew()

    def become(self, member: Member) -> None:
        """Be the member that the one who started this process meant it to be."""
        before = self.member
        if member == before:
            return
        if self.writer is not None and self.writer.begun:
            self.tell("untraced", before)
        self.lineage.become(member)
        self._seed_python(member)
        if not member.observed:
            if self.writer is not None:
                self.writer.drop()
            if self.recorder is not None:
                self.recorder.abandon()
        elif self.writer is not None:
            self.writer.rename(self._trace_path(), member.name, _main_thread(member))
            if self._given is not None:
                self._given.process = member.name
            if self.recorder is not None:
                self.recorder.attend(self._wanted(), self._interval())
            if self.writer.begun:
                self.tell("here", member)
                self.tell("traced", member)

    def _seed_python(self, member: Member) -> None:
        """Python seeds its own generator anew in a fork, by chance; the others go on."""
        if self.plan.mode != "as-is":
            random.seed(controls.seed_of(self.plan, member))

    def task(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function of a pool's task, recorded as the thread of that name."""

        def observed(*args: Any, **kwargs: Any) -> Any:
            self._task = name
            if self.recorder is not None:
                self.recorder.enter_thread(name, 0)
            try:
                return function(*args, **kwargs)
            finally:
                self._task = None
                # The pool ends its processes by a signal, as soon as it has the results.
                if self.recorder is not None:
                    self.recorder.leave_thread()
                    self.recorder.sink.flush()

        return observed

    def between_tasks(self) -> None:
        """What a pool's process does between tasks comes in the order in which tasks arrive."""
        if not self._working:
            self._working = True
            if self.recorder is not None:
                self.recorder.main.muted += 1

    # -- capture --------------------------------------------------------------------------------

    def _torch_imported(self, torch: Any) -> None:
        try:
            self._start(torch)
        except Exception as error:
            self.end(error)

    def _start(self, torch: Any) -> None:
        plan = self.plan
        self._math_attention = controls.of_torch(plan, torch)
        if plan.end_state:
            from repro_audit.replicate.endstate import EndState

            self._end_state = EndState()
            self._end_state.install()
        if self.stopwatch is not None and plan.target.kind in {"script", "module"}:
            self.stopwatch.install()
        if not self.observed:
            return
        from repro_audit.capture import Lockstep, Recorder

        if self.writer is None:
            self.writer = self._new_writer()
        self._given = self._sources() if plan.given else None
        self.recorder = Recorder(
            self.writer if self._link is None else Lockstep(self.writer, self._link),
            bases=self._bases(),
            steps=None if self.member.worker else plan.steps,
            level=plan.level,
            interval=self._interval(),
            optimizer_ops=plan.optimizer_ops,
            beginnings=plan.beginnings,
            cut=None if self.member.worker else plan.cut,
            idle=plan.idle,
            roots=tuple((shape, prefix) for shape, prefix in plan.roots),
            capture=self._wanted(),
            poison=plan.poison,
            ledger=plan.ledger,
            by_line="draws-by-line" in plan.pins,
            samples=plan.samples,
            budget=plan.budget,
            starting_only=plan.starting_only,
            given=self._given,
            on_progress=self._progress(),
            on_fork=lambda: None,
            on_halt=self._halt,
        )
        self.recorder.clocked = bool(self.member.name)
        self.recorder.start()
        if self._working:
            self.recorder.main.muted += 1
        if self._task is not None:
            self.recorder.enter_thread(self._task, 0)

    def _sources(self) -> Given:
        from repro_audit.capture.given import Given, Source
        from repro_audit.replicate.given import Recorded

        assert self.writer is not None
        opened = {given.trace: Recorded(Path(given.trace)) for given in self.plan.given}
        sources: dict[str, Source] = {given.what: opened[given.trace] for given in self.plan.given}
        inside = any(given.inside for given in self.plan.given)
        batch = self.plan.batch
        return Given(self.writer, sources, self.member.name, batch=batch, inside=inside)

    def _bases(self) -> tuple[str, ...]:
        """What call sites are shown relative to: of a script that torchrun starts its own place."""
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        if not self.member.name or script is None:
            return self.member.bases
        return (*self.member.bases, os.path.dirname(os.path.abspath(script)))  # noqa: PTH100, PTH120

    def _halt(self) -> None:
        """The replicas in lock-step came apart: the trace ends, whatever the program does yet."""
        try:
            self._caught = True
            self._finish("stopped", 0, None, at_once=True)
        except Exception as error:
            self.end(error)

    def _record_anew(self) -> None:
        recorder = self.recorder
        assert recorder is not None
        if not self.observed:
            recorder.abandon()
            return
        self.writer = self._new_writer()
        if self._given is not None:
            self._given.use(self.writer, self.member.name)
        recorder.record_into(self.writer, self._wanted(), self._interval(), self._progress())
        if self.member.worker:
            recorder.unlimited()

    def _numpy_imported(self, numpy: Any) -> None:
        if self.recorder is not None:
            self.recorder.numpy_imported()

    def _wanted(self) -> tuple[Any, ...]:
        return tuple(key for key in self.plan.capture if key.process == self.member.name)

    def _interval(self) -> Interval | None:
        """The interval, where it is this process's."""
        interval = self.plan.interval
        if interval is None or interval.until.process != self.member.name:
            return None
        return interval

    def _progress(self) -> Callable[[int, int], None]:
        from repro_audit.replicate.progress import Progress

        progress = None if self.member.name else Progress(self.plan.progress)

        def note(steps: int, events: int) -> None:
            # A process group may be gone at the end.
            self._rank = rank_now() if self._rank is None else self._rank
            if progress is not None:
                progress(steps, events)

        return note

    def _thread(self) -> str:
        """Name of the calling thread."""
        if self.recorder is not None:
            mode = self.recorder.mode()
            if mode is not None:
                return mode.name
        main = threading.current_thread() is threading.main_thread()
        return "" if main else "unseen"

    # -- the trace ------------------------------------------------------------------------------

    def _trace_path(self) -> Path:
        from repro_audit.trace import folder_of

        own = Path(self.plan.trace)
        return folder_of(own) / f"{self.member.file}.sqlite" if self.member.name else own

    def _new_writer(self) -> Writer:
        from repro_audit.replicate.writing import RunTrace

        return RunTrace(self, self._trace_path(), _main_thread(self.member))

    def _finish(self, outcome: str, code: int | None, error: str | None, *, at_once: bool) -> bool:
        recorder, writer, plan = self.recorder, self.writer, self.plan
        self.recorder = self.writer = None
        self._recorded = recorder or self._recorded
        cut = threading.current_thread() is not threading.main_thread()
        if recorder is not None:
            recorder.stop(at_once=at_once)
            if recorder.caught:
                self._caught = True
                cut = not recorder.caught_in_main
        left = not self.member.name
        ends = self.member.observed and not self.member.worker and not self._caught
        if self.stopwatch is not None and not self.member.name:
            self.stopwatch.write()
        if self._end_state is not None and ends:
            left |= self._end_state.write(Path(str(plan.end_state)), self.member.name)
        # Of another process than the program's own there is a trace once there is an operator.
        if writer is None or (self.member.name and not writer.begun):
            return left
        writer.close(
            manifest=manifest_of(plan, self.member),
            closing=closing_of(
                recorder,
                {
                    "outcome": "apart" if self._caught else outcome,
                    "exit_code": code,
                    "error": error,
                    "stale_reads": self.reads.stale,
                    "math_attention": self._math_attention,
                    "given": {} if self._given is None else dict(self._given.taken),
                    "not_given": {} if self._given is None else dict(self._given.missing),
                    "rank": self._rank if self._rank is not None else rank_now(),
                    "processes": [] if self.member.name else started_by(Path(plan.trace)),
                },
            ),
            cut=cut,
        )
        if self._link is not None and self._caught:
            self._link.kept()
        return True


def _main_thread(member: Member) -> str:
    """What the main thread is called: a pool's processes share a name, not what they do first."""
    return f"worker-{member.worker}" if member.worker else ""
