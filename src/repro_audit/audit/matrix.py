"""The matrix: the program under one set of conditions after the other, and what they change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit import directories
from repro_audit.audit.axes import cells_of, changes_of, check_here, parse_axes
from repro_audit.audit.comparing import of_recordings
from repro_audit.audit.loop import check_device
from repro_audit.audit.matrix_answers import Comparisons, Sample
from repro_audit.audit.recording import BUDGET, SAMPLES
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events, told_of
from repro_audit.audit.unobserved import unseen_in, warnings_of
from repro_audit.errors import (
    InconclusiveError,
    InterruptedRunError,
    ReproAuditError,
    UsageError,
)
from repro_audit.model import (
    Audit,
    Axis,
    Cell,
    EventCounts,
    Given,
    Matrix,
    Observed,
    Verdict,
    Warn,
)
from repro_audit.model.codes import KIND_PARAM, WEIGHTS
from repro_audit.replicate.machine import machine
from repro_audit.replicate.stopwatch import TIMED
from repro_audit.trace import Trace

# What timing a cell may take, in seconds, if its first steps are not slow already.
_TIMING = 20.0
_FEWEST = 4
_NO_ANSWER = ("failed", "incomparable")


@dataclass(frozen=True, slots=True)
class MatrixRequest:
    """One matrix as the user asked for it: the conditions, and what each run is.

    `vary` are words such as `threads=1,2`. `repeats` runs are made of each cell. With more than one
    job cells run side by side, and no step is timed.
    """

    audit: AuditRequest
    vary: tuple[str, ...]
    grid: bool = False
    repeats: int = 2
    jobs: int = 1
    axes: tuple[Axis, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the axes. Raises UsageError as `parse_axes` does, or where two options collide."""
        axes = parse_axes(self.vary, self.audit.target)
        names = {axis.name for axis in axes}
        if "device" in names and self.audit.devices:
            raise UsageError("--device and --vary device both choose the device; give one of them")
        if "deterministic" in names and self.audit.mode != "controlled":
            raise UsageError(
                f"--{self.audit.mode} and --vary deterministic exclude each other; give one of them"
            )
        object.__setattr__(self, "axes", axes)


def run_matrix(request: MatrixRequest, progress: Progress) -> Audit:
    """Run every cell so many times, time a step in each, and compare the cells.

    A cell that fails is a result; where the baseline does, its error is raised. Raises UsageError
    for a value that this machine has not, InconclusiveError where there is nothing to compare.
    """
    check_here(request.axes, machine)
    asked = replace(request.audit, samples=SAMPLES)
    directory = directories.create(asked.root, asked.target)
    try:
        with Session(asked, directory, progress) as session:
            return _Laboratory(session, request).audit()
    finally:
        _discard(directory)


class _Laboratory:
    """Runs the cells of one matrix."""

    def __init__(self, session: Session, request: MatrixRequest) -> None:
        self._session = session
        self._request = request
        self._axes = request.axes
        settings = cells_of(self._axes, grid=request.grid)
        self._baseline = settings[0]
        self._samples = [self._sample(at, each) for at, each in enumerate(settings)]
        self._timing = request.jobs == 1
        session.total = len(settings) * (request.repeats + self._timing)

    def audit(self) -> Audit:
        """Run all, and answer."""
        session = self._session
        warnings = self._start()
        if self._timing:
            for sample in self._samples:
                self._run(sample)
        else:
            self._run_side_by_side()
        baseline = self._samples[0]
        assert baseline.runs
        comparisons = Comparisons(session, self._samples, self._axes, grid=self._request.grid)
        cells, answers = comparisons.cells(), comparisons.answers()
        matrix = Matrix(self._axes, self._baseline, cells, answers, self._request.grid)
        verdict, reason = _verdict(cells)
        first = next((cell for cell in cells if cell.origin is not None), None)
        return Audit(
            command="matrix",
            target=session.request.target.label,
            mode=session.request.mode,
            verdict=verdict,
            engine=engine.name(),
            runs=told_of(*(run for sample in self._samples for run in sample.runs)),
            events=EventCounts.total(cell.events for cell in cells if cell.events is not None),
            observed=_observed(cells, self._samples),
            origin=None if first is None else first.origin,
            passes=session.passes,
            warnings=(
                *warnings_of(baseline.runs, printed_identical=None),
                *warnings,
                *self._told(),
                *session.notes,
            ),
            unseen=unseen_in(baseline.runs[0].trace),
            directory=str(session.directory),
            reason=reason,
            matrix=matrix,
        )

    def _sample(self, at: int, settings: Mapping[str, str]) -> Sample:
        asked = self._session.request
        changes = changes_of(settings, self._axes, asked.mode)
        graph = (
            any(settings.get(name) != self._baseline.get(name) for name in ("compile", "dtype"))
            or settings.get("compile", "eager") != "eager"
        )
        # Other graphs run other operators: what modules give is what they have in common.
        changes["level"] = "modules" if graph else asked.level
        varied = [
            f"{axis.name}={settings[axis.name]}"
            for axis in self._axes
            if settings[axis.name] != self._baseline[axis.name]
        ]
        return Sample(at, " ".join(varied) or "baseline", settings, changes)

    def _start(self) -> list[Warn]:
        """Have cells whose kernels draw other numbers start as the baseline does.

        With another batch or hash seed also the baseline's kernels draw other numbers: of each
        there is a start of its own.
        """
        began: dict[int, Finished | ReproAuditError] = {}
        for sample in self._samples:
            settings = sample.settings
            if all(settings.get(n) == self._baseline.get(n) for n in ("isa", "device")):
                continue
            own = {n: settings[n] for n in ("batch", "hash-seed") if n in settings}
            wanted = {**self._baseline, **own}
            like = next(one for one in self._samples if one.settings == wanted)
            if like.at not in began:
                began[like.at] = self._started(like)
            start = began[like.at]
            if isinstance(start, ReproAuditError):
                self._failed(sample, start)
                continue
            place = str(start.trace.path.resolve())
            sample.changes["given"] = tuple(
                Given(what, place) for what in ("weights", "inputs", "draws")
            )
        if any(isinstance(run, Finished) and not run.trace.kept() for run in began.values()):
            return [Warn("RA113", "nothing that the baseline starts from could be kept")]
        return []

    def _started(self, sample: Sample) -> Finished | ReproAuditError:
        """A run that keeps what the cell starts from, draws among it: events of operators."""
        self._session.total += 1
        name = f"start-{sample.at:03}" if sample.at else "start"
        changes = {**sample.changes, "level": "ops", "budget": BUDGET, "starting_only": True}
        try:
            run = self._session.observed(name, "start", **changes)
            self._checked(sample, run)
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            if sample.at == 0:
                raise
            return error
        return run

    def _run(self, sample: Sample) -> None:
        """The runs of a cell, one after the other, and then one that is timed."""
        if sample.error is not None:
            return
        try:
            for number in range(1, self._request.repeats + 1):
                run = self._session.observed(
                    f"cell-{sample.at:03}-{number}", "cells", **sample.changes
                )
                self._checked(sample, run)
                sample.runs.append(run)
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            self._failed(sample, error)
            return
        sample.seconds = self._timed(sample)

    def _run_side_by_side(self) -> None:
        asked = [
            (sample, f"cell-{sample.at:03}-{number}")
            for sample in self._samples
            if sample.error is None
            for number in range(1, self._request.repeats + 1)
        ]
        found = self._session.several(
            [{"name": name, **sample.changes} for sample, name in asked],
            [self._weight(sample) for sample, _ in asked],
            "cells",
        )
        for (sample, _), run in zip(asked, found, strict=True):
            if sample.error is not None:
                # Of a cell that failed no run counts, whichever came first.
                continue
            try:
                if isinstance(run, ReproAuditError):
                    raise run
                self._checked(sample, run)
                sample.runs.append(run)
            except ReproAuditError as error:
                self._failed(sample, error)

    def _weight(self, sample: Sample) -> float:
        """What share of the machine a run of this cell takes."""
        share = 1 / self._request.jobs
        device = sample.settings.get("device") or next(iter(self._session.request.devices), "cpu")
        if device != "cpu":
            return 1.0
        threads = int(sample.settings.get("threads", 1))
        return max(share, min(1.0, threads / (os.cpu_count() or 1)))

    def _checked(self, sample: Sample, run: Finished) -> None:
        """Raise what a run demands that ended well and is worth nothing all the same."""
        reason = no_events(run)
        if reason is not None:
            raise InconclusiveError(f"{reason}: there is nothing to compare")
        device = sample.settings.get("device")
        if device is not None:
            values = next(axis.values for axis in self._axes if axis.name == "device")
            check_device(replace(self._session.request, devices=values), run, device)

    def _failed(self, sample: Sample, error: ReproAuditError) -> None:
        # Of the baseline there is nothing to compare with; a device that no op uses is misuse.
        if sample.at == 0 or isinstance(error, UsageError):
            raise error
        sample.runs.clear()
        sample.error = error

    def _timed(self, sample: Sample) -> float | None:
        """The median time of a step of a run that nobody observes."""
        asked = self._session.request
        run = sample.runs[0]
        changes: dict[str, Any] = {**sample.changes, "given": ()}
        if asked.target.kind in {"model-file", "class"}:
            each = (run.info.seconds or 0.0) / max(run.trace.steps, 1)
            most = max(_FEWEST, min(TIMED, int(_TIMING / max(each, 1e-3))))
            changes["steps"] = max(most, asked.steps or 0)
        elif not _steps_an_optimizer(run.trace):
            # Nothing tells where its steps end.
            self._session.total -= 1
            return None
        try:
            return self._session.timed(f"time-{sample.at:03}", **changes)
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            said = error.in_a_line
            self._session.notes.append(Warn("RA114", f"{sample.name} was not timed: {said}"))
            return None

    def _told(self) -> Iterator[Warn]:
        """What to know of runs that took their start from the baseline."""
        for sample in self._samples:
            if sample.changes.get("given") and sample.runs:
                run = sample.runs[0]
                yield from of_recordings([run.info], [run.trace])


def _discard(directory: Path) -> None:
    """Remove the traces that kept outputs whole, however their runs ended: gigabytes each."""
    for pattern in ("rows-*.sqlite*", "math-*.sqlite*"):
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _steps_an_optimizer(trace: Trace) -> bool:
    """True if parameters were updated: they are recorded after each step."""
    if trace.steps < 2:
        return False
    rows = zip(trace.kind, trace.phase, trace.step, trace.call_index, strict=True)
    return any(
        kind == KIND_PARAM and phase == WEIGHTS and step == 0 and call
        for kind, phase, step, call in rows
    )


def _verdict(cells: tuple[Cell, ...]) -> tuple[Verdict, str | None]:
    outcomes = [cell.outcome for cell in cells]
    if "differs" in outcomes or "varies" in outcomes:
        return "divergent", None
    failed = [cell for cell in cells if cell.outcome in _NO_ANSWER]
    if not failed:
        return "identical", None
    rest = len(cells) - len(failed)
    said = "the others agree" if rest > 1 else "there is nothing to compare"
    return "inconclusive", f"{len(failed)} of {len(cells)} cells gave no answer, {said}"


def _observed(cells: tuple[Cell, ...], samples: list[Sample]) -> Observed:
    """How often cells differ from the baseline; one that varies is an outcome of its own."""
    compared = [cell for cell in cells[1:] if cell.outcome not in _NO_ANSWER]
    groups = {cell.group for cell in cells if cell.group is not None}
    varying = sum(cell.outcome == "varies" for cell in cells)
    return Observed(
        runs=sum(len(sample.runs) for sample in samples),
        distinct=len(groups) + varying,
        differing_pairs=sum(cell.outcome != "identical" for cell in compared),
        pairs=len(compared),
    )
