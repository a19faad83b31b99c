"""Runs one plan in a fresh process and process group of its own, and sees to its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from repro_audit.control.environment import child_environment
from repro_audit.errors import InterruptedRunError, ProgramFailedError, UsageError
from repro_audit.model import Plan
from repro_audit.replicate import output
from repro_audit.replicate.census import Census, census, strays_of
from repro_audit.replicate.lineage import VARIABLE
from repro_audit.replicate.plan import plan_to_json
from repro_audit.replicate.progress import COUNTERS

POLL = 0.05
_ROUNDS = 40
# What a program gets to write its last words after SIGINT, in seconds.
_GRACE = 2.0
_HINTS = {
    "SIGKILL": "out of memory?",
    "SIGSEGV": "a crash in native code",
    "SIGABRT": "a failed check in native code",
    "SIGBUS": "a crash in native code, or /dev/shm is full",
    "SIGILL": "an instruction that this CPU lacks",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run's process ended: `returncode` as Popen's, `signal` its name if one ended it.

    `out` and `err` are the files that hold what it printed; `seconds` is wall time, and `timeout`
    what it was allowed of it. `processes` is what became of those that it started. `apart` says
    that it was told to end where it came apart from another one in lock-step, with its trace whole;
    `ended` that it was ended because that one failed.
    """

    run: str
    returncode: int
    signal: str | None
    timed_out: bool
    seconds: float
    out: Path
    err: Path
    timeout: float | None
    processes: Census
    apart: bool = False
    ended: bool = False


def run(
    plan: Plan,
    *,
    directory: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    echo: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    command: Sequence[str] | None = None,
) -> Outcome:
    """Be the supervisor of one run, from its start until its last process is gone.

    Writes `RUN.plan.json`, `RUN.out` and `RUN.err` into `directory`. `env` stands in for this
    process's environment, before the plan's controls. Standard input is empty. `timeout` is in
    seconds. `echo` passes on what the program prints, as it does. `on_progress(steps, events)` is
    called when either has grown. `command` stands in for the interpreter and the child module; the
    plan's path is appended to it.

    After the timeout, and when interrupted, the process group gets SIGINT, two seconds, and
    SIGKILL; whatever the program left running when it ended is killed too. Raises
    InterruptedRunError on an interrupt (or SIGTERM), UsageError if the process cannot be started.
    """
    with termination_interrupts():
        replica = Replica(
            plan, directory, cwd=cwd, env=env, timeout=timeout, echo=echo, command=command
        )
        try:
            if on_progress is not None:
                replica.follow(on_progress)
            while not replica.ended and not replica.overdue:
                replica.watch()
                time.sleep(POLL)
        except KeyboardInterrupt:
            replica.forget()
            replica.interrupt()
            raise InterruptedRunError(f"interrupted in {plan.run}") from None
        finally:
            outcome = replica.bury()
    return outcome


class Replica:
    """A run under way, from its start on; in the end it must be buried, once."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        echo: bool = False,
        command: Sequence[str] | None = None,
    ) -> None:
        self._out, self._err = directory / f"{plan.run}.out", directory / f"{plan.run}.err"
        self.plan = plan = _relocated(plan, cwd)
        self._timeout = timeout
        self._plan_file = directory.resolve() / f"{plan.run}.plan.json"
        self._counters = Path(plan.progress)
        try:
            self._plan_file.write_text(json.dumps(plan_to_json(plan), indent=1), encoding="utf-8")
            self._counters.write_bytes(bytes(COUNTERS.size))
        except OSError as error:
            said = f"cannot write to {directory}: {error.strerror}. Make room there."
            raise UsageError(said) from error
        environment = child_environment(plan, os.environ if env is None else env)
        # Whatever the program starts can be told by it, even in a session of its own.
        environment[VARIABLE] = str(self._plan_file)
        if echo:
            environment.setdefault("PYTHONUNBUFFERED", "1")
        self._watchers: list[Callable[[], None]] = []
        self._followed = contextlib.ExitStack()
        self.began = time.monotonic()
        words = [*(command or _child()), str(self._plan_file)]
        shared = () if plan.lockstep is None else (plan.lockstep,)
        self._process = _start(words, cwd, environment, self._out, self._err, shared)
        if echo:
            self._watchers += [
                self._followed.enter_context(output.tail(self._out, sys.stdout)),
                self._followed.enter_context(output.tail(self._err, sys.stderr)),
            ]

    def follow(self, tell: Callable[[int, int], None]) -> None:
        """Have `tell` told of steps and events as they grow."""
        self._watchers.append(self._followed.enter_context(_progress(self._counters, tell)))

    def forget(self) -> None:
        """Pass on nothing more."""
        self._watchers.clear()

    def watch(self) -> None:
        """Pass on what there is: to be called now and then."""
        for watch in self._watchers:
            watch()

    @property
    def ended(self) -> bool:
        """True once its process has ended, whatever it left running."""
        return _ended(self._process)

    @property
    def overdue(self) -> bool:
        """True once it has taken longer than it may."""
        return self._timeout is not None and time.monotonic() >= self.began + self._timeout

    def interrupt(self) -> None:
        """SIGINT to the group, and time to act on it, which a second interrupt cuts short."""
        os.killpg(self._process.pid, signals.SIGINT)
        deadline = time.monotonic() + _GRACE
        with contextlib.suppress(KeyboardInterrupt):
            while not self.ended and time.monotonic() < deadline:
                time.sleep(POLL)

    def bury(self, *, apart: bool = False, ended: bool = False) -> Outcome:
        """Kill what is left of it, reap it, and tell how it ended.

        One that is overdue is interrupted first. `apart` says that it was told to end.
        """
        timed_out = self.overdue and not self.ended
        if timed_out:
            self.interrupt()
        processes = census(self._counters.with_suffix(".processes"))
        returncode = _bury(self._process, self._plan_file)
        self.watch()
        self._followed.close()
        return Outcome(
            run=self.plan.run,
            returncode=returncode,
            signal=signals.Signals(-returncode).name if returncode < 0 else None,
            timed_out=timed_out,
            seconds=time.monotonic() - self.began,
            out=self._out,
            err=self._err,
            timeout=self._timeout,
            processes=processes,
            apart=apart,
            ended=ended,
        )


def replay_result(plan: Plan) -> Path:
    """Where a replay's process leaves what it found."""
    return Path(plan.progress).with_suffix(".replay.json")


def failure(outcome: Outcome, plan: Plan) -> ProgramFailedError:
    """What to raise for a run that failed: how it ended, and the program's own last words."""
    what = f"{plan.target.label} ({outcome.run})"
    if outcome.timed_out:
        first = f"{what} did not end within {outcome.timeout:g} s"
        last = "--timeout S waits longer."
        if plan.steps is None:
            last = f"--steps N ends it after N steps, {last}"
    elif outcome.signal is not None:
        hint = _HINTS.get(outcome.signal)
        first = f"{what} was killed by {outcome.signal}" + (f" ({hint})" if hint else "")
        last = f"All that it printed: {outcome.out} and {outcome.err}"
    else:
        first = f"{what} failed with exit code {outcome.returncode}"
        last = f"All that it printed: {outcome.out} and {outcome.err}"
    words = output.last_words(outcome.err)
    body = [f"  {line}" for line in words] or ["  It printed nothing to standard error."]
    return ProgramFailedError("\n".join([f"{first}:", *body, last]))


def _child() -> list[str]:
    return [sys.executable, "-m", "repro_audit.replicate.child"]


def _start(
    command: list[str],
    cwd: Path | None,
    environment: dict[str, str],
    out: Path,
    err: Path,
    shared: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    # Files, not pipes: a worker that outlives the program would keep a pipe's end open.
    with out.open("wb") as out_file, err.open("wb") as err_file:
        try:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
                pass_fds=shared,
            )
        except OSError as error:
            raise UsageError(
                f"The run of {out.stem} cannot be started: {error}. "
                "Check that the working directory and the interpreter are still there."
            ) from error


def _relocated(plan: Plan, cwd: Path | None) -> Plan:
    """The plan for a copy of the working directory: an absolute path into it becomes relative."""
    here = Path.cwd()
    path = Path(plan.target.path)
    if cwd is None or not path.is_absolute() or not path.is_relative_to(here):
        return plan
    return replace(plan, target=replace(plan.target, path=str(path.relative_to(here))))


def _ended(process: subprocess.Popen[bytes]) -> bool:
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _bury(process: subprocess.Popen[bytes], plan_file: Path) -> int:
    """Kill what is left of the run, then reap its leader, whose pid names the group till then."""
    os.killpg(process.pid, signals.SIGKILL)
    for _ in range(_ROUNDS):
        # What a process had started before it was killed is found in the next round.
        strays = strays_of(plan_file, process.pid)
        if not strays:
            break
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signals.SIGKILL)
        time.sleep(POLL)
    return process.wait()


@contextlib.contextmanager
def _progress(path: Path, tell: Callable[[int, int], None]) -> Iterator[Callable[[], None]]:
    last = (0, 0)

    def look() -> None:
        nonlocal last
        now = COUNTERS.unpack(os.pread(file.fileno(), COUNTERS.size, 0))
        if now != last:
            last = now
            tell(*now)

    with path.open("rb") as file:
        yield look


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """Make SIGTERM and SIGHUP interrupt us: by default they would leave the program running."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signals.getsignal(number) for number in (signals.SIGTERM, signals.SIGHUP)}
    taken = [number for number, handler in before.items() if handler is signals.SIG_DFL]
    for number in taken:
        signals.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signals.signal(number, signals.SIG_DFL)
