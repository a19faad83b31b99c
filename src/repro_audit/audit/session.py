"""One audit's runs: each a plan, a fresh process, a whole trace or a clear error."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.control.pins import POISON
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.errors import InconclusiveError, ReproAuditError, TraceError
from repro_audit.model import EventCounts, Interval, Pass, Plan, RunInfo, Warn
from repro_audit.model.codes import KIND_RNG
from repro_audit.replicate import isolate, launch, lockstep, ours, several
from repro_audit.replicate.census import Census
from repro_audit.replicate.stopwatch import step_seconds
from repro_audit.trace import Trace, TraceFile, folder_of

# Any seed but the controlled one; fixed, so that a confirming run can itself be repeated.
CONFIRM_HASH_SEED = 4242
# What a confirming run changes, all at once.
CONFIRMING: dict[str, Any] = {
    "mode": "as-is",
    "hash_seed": CONFIRM_HASH_SEED,
    "poison": POISON,
    "reversed_listings": True,
}

Compared = tuple[Divergence | None, EventCounts, float]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended well: what reports need of it, its trace, and what it started."""

    info: RunInfo
    trace: Trace
    processes: Census

    @property
    def limited(self) -> bool:
        """True if the limit on its steps ended it, in one of its processes at least."""
        return any(file.closing.get("outcome") == "stopped" for file in self.trace.files)

    @property
    def apart(self) -> bool:
        """True if it ended where it came apart from the other one in lock-step."""
        return came_apart(self.trace)


class Session:
    """Launches the runs of one audit into its directory: one after the other, or two in lock-step.

    A context: at its end the traces that its runs left are closed.
    """

    def __init__(
        self, request: AuditRequest, directory: Path, progress: Progress, *, echo: bool = False
    ) -> None:
        self.request = request
        self.directory = directory
        self.total = len(request.replicas)
        self._devices: tuple[str, ...] = ()
        self._progress = progress
        self._echo = echo
        self._done = 0
        self._began = time.time()
        self._attended: dict[str, Any] = {}
        # Of each pass: runs, those in lock-step among them, and seconds.
        self._passes: dict[str, tuple[int, int, float]] = {}
        self._finished: list[Finished] = []
        # What to tell of the runs beside what they say themselves.
        self.notes: list[Warn] = []
        # Of plans, what further runs take from the first.
        self.as_before: dict[str, Any] = {}
        # Where the next runs run, if not as the request says.
        self.workspace: isolate.Workspace | None = None
        self._traces = contextlib.ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._traces.close()

    def plan(self, name: str, **changes: Any) -> Plan:
        """The plan of a run under this audit's controls, with some of it changed."""
        request = self.request
        directory = self.directory.resolve()
        plan = Plan(
            run=name,
            target=request.target,
            trace=str(directory / f"{name}.sqlite"),
            progress=str(directory / f"{name}.progress"),
            mode=request.mode,
            seed=request.seed,
            hash_seed=None if request.mode == "as-is" else 0,
            device=request.devices[0] if request.devices else None,
            level=request.level,
            steps=request.steps,
            samples=request.samples,
            budget=request.budget,
            given=request.given,
            since=self._began if self._done else None,
        )
        return replace(plan, **{**self.as_before, **changes})

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What has been run so far, in the order of the first run of each pass."""
        return tuple(
            Pass(cast(Any, name), runs, round(seconds, 3), lockstep)
            for name, (runs, lockstep, seconds) in self._passes.items()
        )

    def attend(self, interval: Interval) -> None:
        """Let pairs look at the operators of an interval, and end with the step that it ends in."""
        last = interval.until.step + 1
        steps = self.request.steps
        self._attended = {
            "interval": interval,
            "steps": last if steps is None else min(steps, last),
            "optimizer_ops": interval.until.phase in ("weights", "optimizer"),
        }

    def set_against(self, one: Trace, other: Trace) -> None:
        """Let pairs run on the devices that these two ran on."""
        if self.request.between_devices:
            self._devices = (one.plan["device"], other.plan["device"])

    def compare(self, one: Trace, other: Trace) -> Compared:
        """As `diagnose.origin.compare`, between devices by values alone."""
        return compare(one, other, values_only=self.request.between_devices)

    def observed(self, name: str, pass_: str | None = None, **changes: Any) -> Finished:
        """Run under observation, as part of a pass: by default that of the request's level.

        Raises as the program, or what became of its trace, demands.
        """
        plan = self.plan(name, **changes)
        return self._opened(plan, self._launch(plan, pass_ or self.request.level))

    def beside(
        self,
        one: Mapping[str, Any],
        other: Mapping[str, Any],
        pass_: str | None = None,
    ) -> tuple[Finished, Finished]:
        """Two runs in lock-step; each is told as `observed` is told of one."""
        plans = self.plan(**one), self.plan(**{"since": self._began, **other})
        outcomes = self._launch_both(*plans, pass_ or self.request.level)
        first, second = map(self._opened, plans, outcomes)
        return first, second

    def several(
        self, changes: Sequence[Mapping[str, Any]], weights: Sequence[float], pass_: str
    ) -> list[Finished | ReproAuditError]:
        """Runs side by side, as many at once as weigh 1 together; of each that fails its error."""
        plans = [self.plan(**each) for each in changes]
        done = self._done + len(plans)
        self._progress.start(f"{plans[0].run} to {plans[-1].run}", done, max(self.total, done))
        began = time.monotonic()
        try:
            outcomes = several.run_several(
                plans,
                weights,
                directory=self.directory,
                isolated=self.request.isolate,
                timeout=self.request.timeout,
                on_progress=self._progress.update,
            )
        finally:
            self._progress.finish()
        self._count(pass_, len(plans), 0, time.monotonic() - began)
        found: list[Finished | ReproAuditError] = []
        for plan, outcome in zip(plans, outcomes, strict=True):
            try:
                self._check(plan, outcome)
                found.append(self._opened(plan, outcome))
            except ReproAuditError as error:
                found.append(error)
        return found

    def timed(self, name: str, **changes: Any) -> float | None:
        """Seconds that a step takes where nobody observes it; None where none could be told."""
        path = self.directory.resolve() / f"{name}.times.json"
        plan = self.plan(name, observe=False, stopwatch=str(path), **changes)
        self._launch(plan, "timing")
        return step_seconds(path)

    def run_of(self, trace: Trace) -> Finished | None:
        """The run that left this trace."""
        return next((run for run in self._finished if run.trace is trace), None)

    def _opened(self, plan: Plan, outcome: launch.Outcome) -> Finished:
        trace = _opened(plan, outcome.processes)
        self._traces.callback(trace.close)
        info = RunInfo(
            name=plan.run,
            trace=_shown(Path(plan.trace)),
            manifest=trace.manifest,
            printed=_digest(outcome.out),
            seconds=round(outcome.seconds, 3),
        )
        self._finished.append(Finished(info, trace, outcome.processes))
        return self._finished[-1]

    def unobserved(self, name: str, **changes: Any) -> Path:
        """Run without observation; returns what the program printed."""
        return self._launch(self.plan(name, observe=False, **changes), "self-check").out

    def pair(
        self, name: str, pass_: str, *, lockstep: bool = False, **changes: Any
    ) -> tuple[Finished, Finished]:
        """Two runs alike, `NAMEa` and `NAMEb`, that look at what the session attends to."""
        self.total = max(self.total, self._done + 2)
        one = other = {**self._attended, **changes}
        if self._devices:
            one, other = ({**one, "device": device} for device in self._devices)
        if lockstep:
            return self.beside(
                {"name": f"{name}a", **one}, {"name": f"{name}b", **other}, pass_=pass_
            )
        return self.observed(f"{name}a", pass_, **one), self.observed(f"{name}b", pass_, **other)

    def attended(self, name: str, pass_: str, **changes: Any) -> Finished:
        """One run as those of a pair."""
        self.total = max(self.total, self._done + 1)
        return self.observed(name, pass_, **{**self._attended, **changes})

    def cured(self, name: str, **changes: Any) -> Finished:
        """One run of the whole program under changed conditions."""
        self.total = max(self.total, self._done + 1)
        return self.observed(name, "cure", **changes)

    def confirming(self, name: str = "confirm") -> Finished:
        """One run as-is: another hash seed, poisoned `empty*` memory, listings reversed."""
        self.total = max(self.total, self._done + 1)
        return self.observed(name, "confirm", **{**self._attended, **CONFIRMING})

    def replay(self, plan: Plan, times: int, seconds: float) -> Any:
        """What a process of its own found that made the plan's captured call again and again."""
        command = [sys.executable, "-m", "repro_audit.replicate.replay", str(times), str(seconds)]
        self._launch(plan, "experiments", command)
        return json.loads(launch.replay_result(plan).read_text(encoding="utf-8"))

    def _launch(
        self, plan: Plan, pass_: str, command: Sequence[str] | None = None
    ) -> launch.Outcome:
        request = self.request
        self._progress.start(plan.run, self._done + 1, max(self.total, self._done + 1))
        try:
            with self._workspace() as place:
                outcome = launch.run(
                    plan,
                    directory=self.directory,
                    cwd=place.cwd,
                    env=place.environment,
                    timeout=request.timeout,
                    echo=self._echo,
                    on_progress=self._progress.update,
                    command=command,
                )
        finally:
            self._progress.finish()
        self._count(pass_, 1, 0, outcome.seconds)
        self._check(plan, outcome)
        return outcome

    def _workspace(self) -> contextlib.AbstractContextManager[isolate.Workspace]:
        if self.workspace is not None:
            return contextlib.nullcontext(self.workspace)
        return isolate.workspace(enabled=self.request.isolate)

    def _launch_both(
        self, one: Plan, other: Plan, pass_: str
    ) -> tuple[launch.Outcome, launch.Outcome]:
        request = self.request
        total = max(self.total, self._done + 2)
        self._progress.start(f"{one.run} and {other.run}", self._done + 2, total)
        began = time.monotonic()
        try:
            with (
                isolate.workspace(enabled=request.isolate) as here,
                isolate.workspace(enabled=request.isolate) as there,
            ):
                outcomes = lockstep.run_pair(
                    lockstep.Start(one, here.cwd, here.environment),
                    lockstep.Start(other, there.cwd, there.environment),
                    directory=self.directory,
                    timeout=request.timeout,
                    on_progress=self._progress.update,
                )
        finally:
            self._progress.finish()
        self._count(pass_, 2, 2, time.monotonic() - began)
        # Where both failed, one was ended for the other: what that one says goes first.
        pairs = sorted(zip((one, other), outcomes, strict=True), key=lambda p: p[1].ended)
        for plan, outcome in pairs:
            self._check(plan, outcome)
        return outcomes

    def _count(self, pass_: str, runs: int, lockstep: int, seconds: float) -> None:
        self._done += runs
        before = self._passes.get(pass_, (0, 0, 0.0))
        self._passes[pass_] = before[0] + runs, before[1] + lockstep, before[2] + seconds

    def _check(self, plan: Plan, outcome: launch.Outcome) -> None:
        """Raise what a run demands that did not end well."""
        if not (outcome.out.exists() and outcome.err.exists()):
            raise InconclusiveError(
                f"{self.directory} was removed while {plan.run} ran. "
                "Let the program keep its hands off .repro-audit, and run it again."
            )
        failed = (outcome.timed_out or outcome.returncode != 0) and not outcome.apart
        # A process that the program started may have left word as well, and the program gone on.
        error = ours.found(plan) or (launch.failure(outcome, plan) if failed else None)
        if error is not None:
            raise error


def told_of(*runs: Finished) -> tuple[RunInfo, ...]:
    """What reports need of the runs, with the steps that each made, in whichever process."""
    return tuple(
        replace(run.info, manifest={**run.info.manifest, "steps": run.trace.steps}) for run in runs
    )


def came_apart(trace: Trace) -> bool:
    """True for the trace of a run that ended where it came apart from another in lock-step."""
    return trace.closing.get("outcome") == "apart"


def no_events(finished: Finished) -> str | None:
    """Why a run's trace holds nothing to judge by, or None."""
    if any(kind != KIND_RNG for kind in finished.trace.kind):
        return None
    if finished.info.manifest.get("versions", {}).get("torch") is None:
        if finished.processes.unheard:
            return "the program never imported torch in a process that is observed"
        return "the program never imported torch"
    if finished.trace.plan.get("level") == "modules":
        return "no module was called: --level ops looks at what the program does without one"
    if finished.processes.unheard:
        return "the program ran no torch op in a process that is observed"
    return "the program ran no torch op"


def _opened(plan: Plan, processes: Census) -> Trace:
    """The trace of a run whose process ended with 0."""
    path = Path(plan.trace)
    others = [folder_of(path) / f"{name}.sqlite" for name in sorted(processes.traced)]
    for trace in (path, *others):
        if not trace.exists():
            raise ours.removed(plan, trace)
    partial = TraceFile.open(path, partial=True)
    partial.close()
    if not partial.closing:
        raise TraceError(
            f"{plan.target.label} ({plan.run}) ended before its trace was whole. "
            "Let it return or leave by sys.exit() or os._exit(), not from native code."
        )
    return Trace.open(path)


def _digest(path: Path) -> str | None:
    """A digest of what a program printed; None if it printed nothing."""
    data = path.read_bytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest() if data else None


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
