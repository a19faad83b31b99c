"""Does a recording reproduce here? Its command, run again under its controls, and compared."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro_audit.audit import directories
from repro_audit.audit.comparing import compared
from repro_audit.audit.recording import SAMPLES
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events, told_of
from repro_audit.audit.unobserved import warnings_of
from repro_audit.diagnose.own import own_errors
from repro_audit.errors import InconclusiveError, UsageError
from repro_audit.model import Audit, Given, OwnErrors, Plan, RunInfo, Tolerance, Warn
from repro_audit.replicate.plan import plan_from_json
from repro_audit.trace import Trace

# What a run is held to beside what is asked of every run: a matrix's cell may be verified too.
_CONDITIONS = ("hash_seed", "pins", "held", "batch", "rows", "dtype", "compile")


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """One verification as the user asked for it.

    `program` is where the recorded program is here, if not where it was; `device` is another than
    the recorded one. With `same_start` the run takes weights, inputs and random draws from the
    recording. `own` is whether each event is also run with the recording's values: None for where
    that can be done and the runs differ.
    """

    recording: Path
    program: str | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    same_start: bool = False
    own: bool | None = None
    device: str | None = None
    timeout: float | None = None
    isolate: bool = False
    root: Path = Path(".repro-audit")


def verify(request: VerifyRequest, progress: Progress) -> Audit:
    """Run what was recorded, here and now, and compare: identical, within tolerance, divergent.

    Raises TraceError for what is no whole recording, InconclusiveError for one that cannot be run
    again or does not hold what is asked of it, UsageError where its program is not here, else as
    the run does.
    """
    with closing(Trace.open(request.recording)) as recorded:
        plan = _plan(request, recorded)
        kept = bool(recorded.kept())
        _check_kept(request, plan, kept)
        place = str(request.recording.resolve())
        start = [Given(what, place) for what in ("weights", "inputs", "draws")]
        asked = AuditRequest(
            plan.target,
            timeout=request.timeout,
            isolate=request.isolate,
            steps=plan.steps,
            devices=() if plan.device is None else (plan.device,),
            mode=plan.mode,
            level=plan.level,
            seed=plan.seed,
            samples=SAMPLES,
            given=tuple(start) if request.same_start else (),
            root=request.root,
        )
        directory = directories.create(request.root, plan.target)
        with Session(asked, directory, progress) as session:
            session.total = 1
            conditions = {name: getattr(plan, name) for name in _CONDITIONS}
            run = session.observed("here", "verify", **conditions)
            reason = no_events(run)
            if reason is not None:
                raise InconclusiveError(f"{reason}: there is nothing to compare")
            audit = _compared(request, recorded, run)
            wanted = request.own if request.own is not None else kept and plan.level == "ops"
            own: OwnErrors | None = None
            if wanted and audit.verdict != "identical":
                session.total = 2
                every = (Given("all", place),)
                forced = session.observed("own", "own", **{**conditions, "given": every})
                own = own_errors(recorded, forced.trace, run.trace, request.tolerance)
            return replace(
                audit,
                own=own,
                target=plan.target.label,
                directory=str(directory),
                passes=session.passes,
                warnings=(
                    *_of_program(recorded, run),
                    *audit.warnings,
                    *warnings_of([run], printed_identical=None),
                    *session.notes,
                ),
            )


def _compared(request: VerifyRequest, recorded: Trace, run: Finished) -> Audit:
    name = request.recording.name
    there = RunInfo(name, str(request.recording), {**recorded.manifest, "steps": recorded.steps})
    (here,) = told_of(run)
    audit = compared((there, here), (recorded, run.trace), request.tolerance)
    return replace(audit, command="verify")


def _plan(request: VerifyRequest, recorded: Trace) -> Plan:
    """What was run, as it is to be run here."""
    plan = plan_from_json(recorded.plan)
    if not plan.progress:
        raise InconclusiveError(
            f"{request.recording} was made by repro_audit.record() within a program, which no "
            "command runs again. Run that program here, and `repro-audit compare` the two."
        )
    if plan.given and not request.same_start:
        taken = ", ".join(sorted({given.what for given in plan.given}))
        raise InconclusiveError(
            f"{request.recording} took {taken} from another recording. "
            "--same-start has the run take them from this one."
        )
    target = plan.target
    if request.program is not None:
        target = replace(target, path=request.program)
    if target.kind != "module" and request.program is not None and not Path(target.path).is_file():
        is_not = "is a directory" if Path(target.path).is_dir() else "is not here"
        raise UsageError(
            f"{target.path} {is_not}; name the program's file, where {plan.target.path} is here: "
            f"repro-audit verify {request.recording} PROGRAM.py"
        )
    if target.kind != "module" and not Path(target.path).is_file():
        raise UsageError(
            f"{request.recording} is of {target.path}, which is not here; name the program: "
            f"repro-audit verify {request.recording} PROGRAM.py"
        )
    return replace(plan, target=target, device=request.device or plan.device)


def _check_kept(request: VerifyRequest, plan: Plan, kept: bool) -> None:
    if (request.same_start or request.own) and not kept:
        raise InconclusiveError(
            f"{request.recording} kept no tensor whole. Record it there with --capture full."
        )
    if request.own and plan.level != "ops":
        raise InconclusiveError(
            f"{request.recording} is of modules alone. Record it there with --level ops."
        )


def _of_program(recorded: Trace, run: Finished) -> tuple[Warn, ...]:
    """What to say where the program is not, byte by byte, the recorded one."""
    hashes = [
        manifest.get("target", {}).get("sha256")
        for manifest in (recorded.manifest, run.info.manifest)
    ]
    if hashes[0] == hashes[1]:
        return ()
    return (Warn("RA111", "the program is not the one that was recorded: its source differs"),)
