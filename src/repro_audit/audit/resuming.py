"""Does a resumed run equal a straight one? Run through, end early, resume, compare."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit import directories
from repro_audit.audit.repeating import Both, look_closer
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events, told_of
from repro_audit.audit.source import with_source
from repro_audit.audit.unobserved import unseen_in, warnings_of
from repro_audit.diagnose import manifests
from repro_audit.diagnose.origin import compare
from repro_audit.diagnose.overview import overview
from repro_audit.diagnose.restored import restored
from repro_audit.diagnose.resuming import Aligned, aligned, goes_on_at, going_on
from repro_audit.diagnose.unrestored import unrestored
from repro_audit.errors import UsageError
from repro_audit.model import (
    Audit,
    Cause,
    EventCounts,
    ManifestDifference,
    Observed,
    Resumption,
    Verdict,
    Warn,
)
from repro_audit.replicate.isolate import Turns
from repro_audit.trace import Trace

_NOTHING = EventCounts(0, 0, 0)
# Files that the first part left, as told where none of them was read.
_LEFT = 3


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """One such audit as the user asked for it.

    The first part is ended as it is about to make step `at` (from 0); where that is None, it ends
    by itself. `first` and `again` are words that the first part and the resumed run get beside
    the program's own.
    """

    program: AuditRequest
    at: int | None = None
    first: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Runs:
    """The three runs, and the parts of straight and resumed that are to be the same."""

    straight: Finished
    interrupted: Finished
    resumed: Finished
    a: Trace
    b: Trace
    found: Aligned
    resumption: Resumption


def run_resume(request: ResumeRequest, progress: Progress) -> Audit:
    """Run the program straight through; then its first part, and the resumed run where that left.

    All in copies of the working directory at one place. Divergent: two more runs tell whether
    the straight and the resumed run repeat themselves, and keep the origin's tensors. Raises
    UsageError where the program cannot be ended or does not resume, else as runs do.
    """
    program = request.program
    if program.target.kind in {"model-file", "class"}:
        raise UsageError(
            f"{program.target.label} neither saves nor resumes; name the script or module that does"
        )
    if request.at is None and not request.first:
        raise UsageError("say where to end the first part: --at STEP, or --first ARGUMENTS")
    if request.at is not None and program.steps is not None and program.steps <= request.at:
        raise UsageError(
            f"--steps {program.steps} ends the straight run before step {request.at} is made: "
            f"--steps {request.at + 2} at least lets the resumed run make two"
        )
    directory = directories.create(program.root, program.target)
    with Session(program, directory, progress) as session, Turns() as turns:
        session.total = 3
        return _audit(request, session, turns)


def _audit(request: ResumeRequest, session: Session, turns: Turns) -> Audit:
    program, directory = session.request, session.directory
    session.workspace = turns.fresh()
    straight = session.observed("straight", "resume", beginnings=True)
    idle = _first_known(straight.trace, "idle")
    if idle:
        # Steps were counted as if they waited for optimizers that never step.
        session.workspace = turns.fresh()
        session.total += 1
        straight = session.observed("straight-paced", "resume", beginnings=True, idle=tuple(idle))
    session.as_before = {
        "idle": tuple(idle),
        "roots": tuple(map(tuple, _first_known(straight.trace, "roots"))),
    }
    audit = Audit(
        command="resume",
        target=program.target.label,
        mode=program.mode,
        verdict="inconclusive",
        engine=engine.name(),
        runs=told_of(straight),
        events=_NOTHING,
        observed=Observed(1, 0, 0, 0),
        unseen=unseen_in(straight.trace),
        directory=str(directory),
        reason=no_events(straight),
    )
    if audit.reason is not None:
        return replace(audit, passes=session.passes)
    if request.at is not None and straight.trace.steps <= request.at:
        raise UsageError(
            f"{program.target.label} makes {straight.trace.steps} steps: --at must be less"
        )
    session.workspace = turns.fresh()
    since = time.time()
    interrupted = session.observed(
        "interrupted", "resume", beginnings=True, cut=request.at, **_with(program, request.first)
    )
    ended = interrupted.trace.steps
    if request.at is not None and ended > request.at:
        raise UsageError(
            f"{program.target.label} cannot be ended before step {request.at}: no optimizer of "
            "torch's makes a step in its main thread. Let it end itself: --first ARGUMENTS"
        )
    if ended < (request.at or 1):
        raise _ended_early(request, interrupted)
    warnings = [*_stale(interrupted), *warnings_of([straight], printed_identical=None)]
    audit = replace(audit, runs=told_of(straight, interrupted), warnings=tuple(warnings))
    # The end of a run is no part of a step; a step that a forward ends may not have ended.
    last = ended if request.at is not None else ended - 1
    found, counts, _ = compare(straight.trace.until(last), interrupted.trace.until(last))
    if found is not None:
        why = (
            f"`repro-audit run {program.target.label}` says why the program does not repeat itself"
        )
        if request.first:
            why = f"it was also given {' '.join(request.first)}"
        return replace(
            audit,
            events=counts,
            origin=with_source(found.origin, program.target),
            passes=session.passes,
            reason="the first part already differs from the straight run, so nothing is said of "
            f"resuming; {why}",
        )
    turns.keep()
    left = _left(turns.directory, since)
    session.workspace = turns.left()
    resumed = session.observed(
        "resumed",
        "resume",
        beginnings=True,
        steps=None if program.steps is None else max(program.steps - ended, 1),
        **_with(program, request.again),
    )
    audit = replace(audit, runs=told_of(straight, interrupted, resumed))
    read = _read(resumed, turns)
    warnings += _outside(read)
    audit = replace(audit, warnings=tuple(warnings))
    if not resumed.trace.steps:
        reason = "the resumed run made no step: it seems to have found its work done"
        return replace(audit, reason=reason, passes=session.passes)
    found_at = goes_on_at(straight.trace, resumed.trace, ended)
    whole = program.steps is not None or resumed.trace.steps >= straight.trace.steps
    if found_at.anew and whole and not read:
        raise _anew(request, left)
    # Where it begins as at the beginning, it went on without the weights.
    step = found_at.step or ended
    runs = _parted(program, straight, interrupted, resumed, step, read)
    return _answer(request, session, turns, runs, audit)


def _with(program: AuditRequest, words: tuple[str, ...]) -> dict[str, Any]:
    target = program.target
    return {"target": replace(target, args=(*target.args, *words))}


def _first_known(trace: Trace, what: str) -> list[Any]:
    """What the first process says in its closing record that has something to say."""
    return next((found for file in trace.files if (found := file.closing.get(what))), [])


def _ended_early(request: ResumeRequest, interrupted: Finished) -> UsageError:
    made = interrupted.trace.steps
    wanted = f", not {request.at}" if request.at is not None else ""
    said = f"the first part made {made} steps by itself{wanted}"
    for warning in _stale(interrupted):
        return UsageError(f"{said}. {warning.message[0].upper()}{warning.message[1:]}")
    return UsageError(f"{said}; let it make some that can be resumed")


def _outside(read: tuple[str, ...]) -> Iterator[Warn]:
    for path in read:
        if Path(path).is_absolute():
            yield Warn(
                "RA101",
                f"the resumed run read {path}, which the straight run may have left: let the "
                "program write below the directory it is started in, of which each run has a copy",
            )
            return


def _stale(interrupted: Finished) -> Iterator[Warn]:
    for path in interrupted.trace.stale_reads[:1]:
        yield Warn(
            "RA101",
            f"the first part read {path}, which the straight run had left: let the program write "
            "below the directory it is started in, of which each run has a copy",
        )


def _read(resumed: Finished, turns: Turns) -> tuple[str, ...]:
    """What the resumed run read of what the first part had written, below its directory or not.

    What lies in the caches that go with the directory is no checkpoint.
    """
    found = []
    for path in map(Path, resumed.trace.stale_reads):
        if path.is_relative_to(turns.directory):
            found.append(path.relative_to(turns.directory))
        elif not path.is_relative_to(turns.place):
            found.append(path)
    return tuple(dict.fromkeys(str(path) for path in found if path.suffix != ".pyc"))


def _left(directory: Path, since: float) -> list[str]:
    """Files that were written below a directory, the latest first."""
    found = [
        (path.stat().st_mtime, str(path.relative_to(directory)))
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.stat().st_mtime >= since
    ]
    return [name for _, name in sorted(found, reverse=True)]


def _anew(request: ResumeRequest, left: list[str]) -> UsageError:
    said = "the resumed run began anew, and read nothing that the first part had left"
    if not left:
        return UsageError(
            f"{said}, which is nothing: let it save a checkpoint before --at, below the directory "
            "that it is started in"
        )
    some = ", ".join(left[:_LEFT]) + (f" and {len(left) - _LEFT} more" if left[_LEFT:] else "")
    if request.again:
        return UsageError(f"{said} ({some}), though it was given {' '.join(request.again)}")
    at = f"--at {request.at}" if request.at is not None else f"--first '{' '.join(request.first)}'"
    return UsageError(
        f"{said} ({some}). Tell it to resume, by its own option, for example\n\n"
        f"  repro-audit resume {request.program.target.label} {at} --again '--resume {left[0]}'"
    )


def _parted(
    program: AuditRequest,
    straight: Finished,
    interrupted: Finished,
    resumed: Finished,
    step: int,
    read: tuple[str, ...],
) -> _Runs:
    made, more = straight.trace.steps, resumed.trace.steps
    # Where a limit, and not the program, ended the resumed run, that is where it is compared to.
    limited = program.steps is not None and resumed.limited
    until = min(made, step + more) if limited else program.steps
    a, b = going_on(straight.trace, resumed.trace, step, until)
    found = aligned(a, b, step)
    resumption = Resumption(
        step=step,
        ended=interrupted.trace.steps,
        straight=made,
        resumed=more,
        compared=min(made - step, more),
        read=read,
        state=restored(a, b, found.alignment.pairs, step),
        more=len(found.more),
        limited=limited,
    )
    return _Runs(straight, interrupted, resumed, a, b, found, resumption)


def _answer(
    request: ResumeRequest, session: Session, turns: Turns, runs: _Runs, audit: Audit
) -> Audit:
    divergence, counts, _ = compare(runs.a, runs.b, alignment=runs.found.alignment)
    counts = replace(counts, unaligned=len(runs.found.more))
    names = runs.straight.info.name, runs.resumed.info.name
    verdict: Verdict = "identical" if divergence is None else "divergent"
    reason = None
    if not counts.compared:
        verdict, reason = "inconclusive", "nothing that both runs did could be compared"
    audit = replace(
        audit,
        verdict=verdict,
        reason=reason,
        events=counts,
        observed=Observed(2, 1 + (divergence is not None), int(divergence is not None), 1),
        overview=overview(runs.a, runs.b, runs.found.alignment, names),
        resumption=runs.resumption,
        manifest_differences=_manifests(runs),
    )
    if divergence is not None and counts.compared:
        again = _with(session.request, request.again)["target"]
        outside = next((path for path in runs.resumption.read if Path(path).is_absolute()), None)
        both = Both(
            runs.straight, runs.resumed, runs.a, runs.b, runs.resumption.step, again, outside
        )
        told = look_closer(session, turns, both, divergence)
        cause: Cause | None = None
        if told.reason is None:
            cause = unrestored(divergence, told.zoomed, runs.resumption, told.made, runs.found.more)
        audit = replace(
            audit,
            verdict="divergent" if told.reason is None else "inconclusive",
            origin=with_source(told.origin, session.request.target),
            cause=cause,
            reason=told.reason,
            warnings=(*audit.warnings, *told.warnings),
        )
    return replace(audit, passes=session.passes, warnings=(*audit.warnings, *session.notes))


def _manifests(runs: _Runs) -> tuple[ManifestDifference, ...]:
    """What differs between straight and resumed run beside the words that tell it to resume."""
    return manifests.differences(
        {run.info.name: run.info.manifest for run in (runs.straight, runs.resumed)},
        but=("asked.steps", "target.arguments"),
    )
