"""Does a resumed run equal a straight one? Run through, end early, resume, compare."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit import directories
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events
from repro_audit.audit.source import with_source
from repro_audit.audit.unobserved import unseen_in, warnings_of
from repro_audit.diagnose import manifests
from repro_audit.diagnose.align import Alignment, column
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.diagnose.overview import overview
from repro_audit.diagnose.resuming import aligned, goes_on_at, going_on, restored
from repro_audit.diagnose.unrestored import made_by, unrestored
from repro_audit.diagnose.zoomed import Zoomed, look_at
from repro_audit.errors import InterruptedRunError, ReproAuditError, UsageError
from repro_audit.model import (
    Audit,
    Cause,
    EventCounts,
    ManifestDifference,
    Observed,
    Origin,
    Resumption,
    SiteKey,
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
    alignment: Alignment
    resumption: Resumption


@dataclass(frozen=True, slots=True)
class _Told:
    """What two further runs say of a divergence; `reason` is why it says nothing of resuming."""

    origin: Origin
    zoomed: Zoomed | None = None
    made: str | None = None
    warnings: tuple[Warn, ...] = ()
    reason: str | None = None


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
    audit = Audit(
        command="resume",
        target=program.target.label,
        mode=program.mode,
        verdict="inconclusive",
        engine=engine.name(),
        runs=_told_of(straight),
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
    audit = replace(audit, runs=_told_of(straight, interrupted), warnings=tuple(warnings))
    early = _until(straight.trace, ended), _until(interrupted.trace, ended)
    found, counts, _ = compare(*early)
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
        since=since,
        steps=None if program.steps is None else max(program.steps - ended, 1),
        **_with(program, request.again),
    )
    audit = replace(audit, runs=_told_of(straight, interrupted, resumed))
    read = _read(resumed, turns.directory)
    if not resumed.trace.steps:
        reason = "the resumed run made no step: it seems to have found its work done"
        return replace(audit, reason=reason, passes=session.passes)
    step = goes_on_at(straight.trace, resumed.trace, ended)
    if step == 0 and ended:
        if not read:
            raise _anew(request, left)
        # It read what the first part had left, but not the weights.
        step = ended
    runs = _parted(program, straight, interrupted, resumed, step, read)
    return _answer(request, session, turns, runs, audit)


def _with(program: AuditRequest, words: tuple[str, ...]) -> dict[str, Any]:
    target = program.target
    return {"target": replace(target, args=(*target.args, *words))}


def _told_of(*runs: Finished) -> tuple[Any, ...]:
    return tuple(
        replace(run.info, manifest={**run.info.manifest, "steps": run.trace.steps}) for run in runs
    )


def _until(trace: Trace, step: int) -> Trace:
    return trace.part(column(trace.step) < step)


def _ended_early(request: ResumeRequest, interrupted: Finished) -> UsageError:
    made = interrupted.trace.steps
    wanted = f", not {request.at}" if request.at is not None else ""
    said = f"the first part made {made} steps by itself{wanted}"
    for warning in _stale(interrupted):
        return UsageError(f"{said}. {warning.message[0].upper()}{warning.message[1:]}")
    return UsageError(f"{said}; let it make some that can be resumed")


def _stale(interrupted: Finished) -> Iterator[Warn]:
    for path in interrupted.trace.stale_reads[:1]:
        yield Warn(
            "RA101",
            f"the first part read {path}, which the straight run had left: let the program write "
            "below the directory it is started in, of which each run has a copy",
        )


def _read(resumed: Finished, directory: Path) -> tuple[str, ...]:
    """What the resumed run read of what the first part had written, below its directory or not."""
    found = []
    for text in resumed.trace.stale_reads:
        path = Path(text)
        if path.suffix != ".pyc":
            inside = path.is_relative_to(directory)
            found.append(str(path.relative_to(directory) if inside else path))
    return tuple(dict.fromkeys(found))


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
    return UsageError(
        f"{said} ({some}). Tell it to resume, by its own option, for example\n\n"
        f"  repro-audit resume {request.program.target.label} --again '--resume {left[0]}'"
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
    until = None if program.steps is None else min(made, step + more)
    a, b = going_on(straight.trace, resumed.trace, step, until)
    alignment = aligned(a, b, step)
    resumption = Resumption(
        step=step,
        ended=interrupted.trace.steps,
        straight=made,
        resumed=more,
        compared=min(made - step, more),
        read=read,
        state=restored(a, b, alignment.pairs, step),
    )
    return _Runs(straight, interrupted, resumed, a, b, alignment, resumption)


def _answer(
    request: ResumeRequest, session: Session, turns: Turns, runs: _Runs, audit: Audit
) -> Audit:
    divergence, counts, _ = compare(runs.a, runs.b, alignment=runs.alignment)
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
        overview=overview(runs.a, runs.b, runs.alignment, names),
        resumption=runs.resumption,
        manifest_differences=_manifests(runs),
    )
    if divergence is not None and counts.compared:
        told = _look_closer(request, session, turns, runs, divergence)
        cause: Cause | None = None
        if told.reason is None:
            cause = unrestored(divergence, told.zoomed, runs.resumption, told.made)
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


def _look_closer(
    request: ResumeRequest, session: Session, turns: Turns, runs: _Runs, divergence: Divergence
) -> _Told:
    """Both again up to the origin: do they repeat themselves, and what was the origin given?"""
    try:
        return _again(request, session, turns, runs, divergence)
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        warning = Warn("RA105", f"looking closer did not end well: {error.in_a_line}")
        return _Told(divergence.origin, warnings=(warning,))


def _again(
    request: ResumeRequest, session: Session, turns: Turns, runs: _Runs, divergence: Divergence
) -> _Told:
    program, origin, step = session.request, divergence.origin, runs.resumption.step
    i, j = divergence.i, divergence.j
    last = origin.key.step + 1
    session.workspace = turns.fresh()
    mine = None if i is None else runs.a.whole_key(i)
    one = session.observed("straight-again", "tensors", **_closer(mine, program.steps, last))
    session.workspace = turns.again()
    other = None if j is None else runs.b.whole_key(j)
    two = session.observed(
        "resumed-again",
        "tensors",
        **_closer(other, None, last - step),
        **_with(program, request.again),
    )
    pairs = ((runs.straight, one, mine, last), (runs.resumed, two, other, last - step))
    for before, again, key, steps in pairs:
        if _varies(before.trace, again.trace, key, steps):
            said = f"the {before.info.name} run does not repeat itself before the runs part"
            way_out = f"`repro-audit run {program.target.label}` says why"
            return _Told(origin, reason=f"{said}, so nothing is said of resuming; {way_out}")
    if mine is None or other is None or origin.kind == "structural":
        return _Told(origin)
    x, y = one.trace.find(mine), two.trace.find(other)
    if x is None or y is None:
        return _Told(origin)
    seen = look_at(one.trace, x, two.trace, y)
    if not seen.differs:
        return _Told(origin)
    refined = replace(
        origin,
        inputs_identical=seen.inputs_identical,
        output=seen.output,
        spec=seen.spec,
        ulp=seen.ulp,
        ulp_runs=(one.info.name, two.info.name),
    )
    return _Told(refined, seen, made_by(one.trace, x, two.trace, y))


def _closer(key: SiteKey | None, steps: int | None, last: int) -> dict[str, Any]:
    return {
        "beginnings": True,
        "capture": () if key is None else (key,),
        "steps": last if steps is None else min(steps, last),
    }


def _varies(before: Trace, again: Trace, key: SiteKey | None, steps: int) -> bool:
    """True if two runs alike part before the event of that name, or at it."""
    found, _, _ = compare(_until(before, steps), _until(again, steps))
    if found is None:
        return False
    at = None if key is None else found.a.find(key)
    return at is None or found.i is None or found.i <= at
