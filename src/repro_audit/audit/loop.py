"""The audit: run, compare, look closer, confirm; one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit import directories, selfcheck
from repro_audit.audit.explain import explain, explain_confirmation
from repro_audit.audit.ledger import drawn_apart
from repro_audit.audit.reproducing import reproduce
from repro_audit.audit.request import AuditRequest, InterruptedAuditError, Progress
from repro_audit.audit.session import Finished, Session, came_apart, no_events, told_of
from repro_audit.audit.source import with_source
from repro_audit.audit.unobserved import cut_short, unseen_in, warnings_of
from repro_audit.audit.zoom import Closer, zoom
from repro_audit.diagnose import manifests
from repro_audit.diagnose.align import align
from repro_audit.diagnose.causes import by_confirming, classify
from repro_audit.diagnose.configuration import configured
from repro_audit.diagnose.generators import may_have_drifted
from repro_audit.diagnose.interval import interval_of
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.overview import overview
from repro_audit.diagnose.runs import Outcomes, compare_runs
from repro_audit.errors import InterruptedRunError, ReproAuditError, UsageError
from repro_audit.model import (
    Audit,
    Cause,
    Confirmation,
    EventCounts,
    Explanation,
    Observed,
    Overview,
    SiteKey,
    Warn,
)
from repro_audit.replicate.machine import machine

_NOTHING = EventCounts(0, 0, 0)
# What differs between runs on two devices because they are two.
_OF_DEVICES = (
    "asked.device",
    "environment.CUDA_VISIBLE_DEVICES",
    "environment.HIP_VISIBLE_DEVICES",
    "environment.REPRO_AUDIT_DEVICE",
)


def run_audit(request: AuditRequest, progress: Progress) -> Audit:
    """Run the target `request.runs` times and compare the runs.

    Divergent: two more runs keep the origin's tensors. Identical, and controlled: one more run
    as-is tells what repeats only under control. Raises ProgramFailedError, UsageError,
    TraceError or InterruptedRunError (InterruptedAuditError, where something was found by then);
    whatever was written stays in the audit's directory.
    """
    directory = directories.create(request.root, request.target)
    found: list[Audit] = []
    with Session(request, directory, progress) as session:
        try:
            return _audit(session, found)
        except InterruptedRunError as error:
            if not found:
                raise
            said = f"{error}: what is told was found before"
            audit = replace(found[-1], reason=said, passes=session.passes)
            if request.explaining and audit.verdict == "divergent":
                # It was asked for, and is not to be advised.
                audit = replace(audit, explanation=Explanation())
            raise InterruptedAuditError(str(error), audit) from error


def _audit(session: Session, found: list[Audit]) -> Audit:
    """The whole audit; `found` is what it would say if it ended there, the latest last."""
    request, directory = session.request, session.directory
    confirming = request.confirm and request.mode == "controlled" and not request.between_devices
    session.total += int(confirming)
    end_state = directory.resolve() / "run-1.end.json" if request.self_check else None
    (name, device), *others = request.replicas
    state = None if end_state is None else str(end_state)
    if request.lockstep and others:
        (beside, where), *others = others
        first = {"name": name, "device": device, "end_state": state}
        runs = list(session.beside(first, {"name": beside, "device": where}))
        check_device(request, runs[1], where)
        # What is cut short at a divergence compares with no whole run.
        others = [] if runs[0].apart else others
    else:
        runs = [session.observed(name, device=device, end_state=state)]
    check_device(request, runs[0], device)
    reason = no_events(runs[0])
    if reason is not None:
        if request.level == "modules" and not runs[1:]:
            # What it prints may differ all the same.
            runs += [session.observed(name, device=device) for name, device in others[:1]]
        warnings = warnings_of(runs, printed_identical=_printed_identical(runs))
        return _inconclusive(request, directory, runs, reason, warnings)
    for name, device in others:
        runs.append(session.observed(name, device=device))
        check_device(request, runs[-1], device)
    outcomes = compare_runs([run.trace for run in runs], values_only=request.between_devices)
    printed = _printed_identical(runs)
    expected = printed is False and request.between_devices
    warnings = warnings_of(runs, printed_identical=None if expected else printed)
    audit = Audit(
        command="run",
        target=request.target.label,
        mode=request.mode,
        verdict="identical",
        engine=engine.name(),
        runs=tuple(run.info for run in runs),
        events=outcomes.counts,
        observed=outcomes.observed,
        printed_identical=printed,
        manifest_differences=manifests.differences(
            _manifests(runs), but=_of_devices(request) if request.between_devices else ()
        ),
        unseen=unseen_in(runs[0].trace),
        overview=_overview(request, runs, outcomes),
        directory=str(directory),
    )
    closer: Closer | None = None
    if outcomes.divergence is not None:
        apart = outcomes.divergence
        cause = configured(classify(apart, None), audit.manifest_differences)
        found.append(replace(audit, verdict="divergent", origin=apart.origin, cause=cause))
        closer = _zoom(session, outcomes)
        cause = classify(closer.divergence, closer.zoomed)
        if cause.cls == "unknown" and came_apart(closer.divergence.a):
            cause = _by_what_follows(session, outcomes.divergence, closer, cause)
        cause = configured(cause, audit.manifest_differences)
        ended = [run.trace for run in runs if not run.apart]
        if not request.between_devices and may_have_drifted(closer.divergence, cause, ended):
            closer, cause = drawn_apart(session, closer, cause)
        audit = replace(
            audit,
            verdict="divergent",
            origin=with_source(closer.origin, request.target),
            cause=cause,
            sightings=closer.sightings,
        )
        warnings += closer.warnings
        found.append(replace(audit, warnings=tuple(warnings)))
        if request.explaining and not request.between_devices:
            answer = explain(session, runs, closer, audit, cause)
            audit = replace(audit, cause=answer.cause, explanation=answer.explanation)
    elif outcomes.counts.compared == 0:
        return _inconclusive(request, directory, runs, "no event could be fingerprinted")
    elif (reason := cut_short(runs)) is not None:
        return _inconclusive(request, directory, runs, reason, warnings)
    elif confirming:
        confirmation, warned = _confirm(session, runs[0])
        warnings += warned
        audit = replace(audit, confirmation=confirmation)
        found.append(replace(audit, warnings=tuple(warnings)))
        if request.explaining and confirmation is not None and confirmation.origin is not None:
            answer = explain_confirmation(session, runs[0], confirmation)
            audit = replace(
                audit,
                confirmation=replace(confirmation, cause=answer.cause),
                explanation=answer.explanation,
            )
    if request.reproducer is not None:
        audit = replace(audit, reproducer=reproduce(request, audit, closer))
    if end_state is not None:
        whole = runs[0]
        if whole.apart:
            alone = {"device": request.replicas[0][1], "end_state": state}
            whole = session.observed("observed", "self-check", **alone)
        audit = replace(audit, self_check=selfcheck.check(session, whole, end_state))
    return replace(
        audit,
        runs=told_of(*runs),
        passes=session.passes,
        warnings=(*warnings, *session.notes),
    )


def _overview(request: AuditRequest, runs: Sequence[Finished], outcomes: Outcomes) -> Overview:
    """All events of the two runs that the divergence is told of; of the first two where none is."""
    found = outcomes.divergence
    a, b = (found.a, found.b) if found is not None else (runs[0].trace, runs[1].trace)
    one, other = (next(run.info.name for run in runs if run.trace is trace) for trace in (a, b))
    return overview(a, b, align(a, b), (one, other), values_only=request.between_devices)


def _zoom(session: Session, outcomes: Outcomes) -> Closer:
    """Look closer; what was found stands even where that fails."""
    assert outcomes.divergence is not None
    try:
        return zoom(session, outcomes.divergence, outcomes.sightings)
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        warning = Warn("RA105", f"looking closer did not end well: {error.in_a_line}")
        origin = outcomes.divergence.origin
        return Closer(outcomes.divergence, origin, None, outcomes.sightings, [warning])


def _by_what_follows(session: Session, first: Divergence, closer: Closer, cause: Cause) -> Cause:
    """The cause by runs that went on after the origin: the same values may follow, in other order.

    Nothing is to be seen of that where what the op was given is the same.
    """
    origin = closer.origin
    if origin.inputs_identical or origin.kind == "structural":
        return cause
    whole: Divergence | None = first
    try:
        if came_apart(first.a) or not _alike(first.origin.key, origin.key):
            one, other = session.pair("whole-1", "tensors")
            whole, _, _ = session.compare(one.trace, other.trace)
    except InterruptedRunError:
        raise
    except ReproAuditError:
        return cause
    if whole is None or not _alike(whole.origin.key, origin.key):
        return cause
    return classify(whole, closer.zoomed)


def _alike(one: SiteKey, other: SiteKey) -> bool:
    return (one.phase, one.module, one.op) == (other.phase, other.module, other.op)


def _confirm(session: Session, first: Finished) -> tuple[Confirmation | None, list[Warn]]:
    """One run as-is, compared with the first controlled one."""
    try:
        run = session.confirming()
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        said = f"the confirming run, as-is, did not end well: {error.in_a_line}"
        return None, [Warn("RA104", said)]
    divergence, counts, _ = session.compare(first.trace, run.trace)
    if divergence is None:
        return Confirmation(run.info, True, counts), []
    if session.request.level == "modules":
        divergence = _confirmed_op(session, divergence)
    cause = classify(divergence, None)
    if not session.request.explaining:
        cause = by_confirming(divergence, cause)
    return Confirmation(run.info, False, counts, divergence.origin, cause), []


def _confirmed_op(session: Session, divergence: Divergence) -> Divergence:
    """The operator behind a module that differs as-is; the module where none is found."""
    interval = interval_of(divergence)
    if interval is None:
        return divergence
    session.attend(interval)
    try:
        one = session.attended("confirm-controlled", "confirm")
        other = session.confirming("confirm-as-is")
    except InterruptedRunError:
        raise
    except ReproAuditError:
        return divergence
    found, _, _ = session.compare(one.trace, other.trace)
    return divergence if found is None else found


def _of_devices(request: AuditRequest) -> tuple[str, ...]:
    kinds = [device.partition(":")[0] for device in request.devices]
    return (*_OF_DEVICES, *(f"torch.{kind}.devices" for kind in kinds))


def check_device(request: AuditRequest, run: Finished, device: str | None) -> None:
    """Raise UsageError if nothing ran on the device that was asked for."""
    if device is None or not len(run.trace):
        return
    kind = device.partition(":")[0]
    seen = sorted({used.partition(":")[0] for used in run.trace.devices()} - {"meta"})
    if kind in seen:
        return
    said = f"no op ran on {device} (only on {', '.join(seen) or 'no device'})"
    if kind != "cpu" and not machine().devices.get(kind):
        said += f", and torch finds no {kind} device here"
    if request.between_devices:
        raise UsageError(
            f"{said}. A script chooses its own device: let it take the one that the variable "
            "REPRO_AUDIT_DEVICE names, or audit a model file"
        )
    raise UsageError(
        f"{said}. A script chooses its own device: hand it its own flag after --, for example\n\n"
        f"  repro-audit run {request.target.label} --device {device} -- --device {kind}"
    )


def _inconclusive(
    request: AuditRequest,
    directory: Path,
    runs: Sequence[Finished],
    reason: str,
    warnings: Sequence[Warn] = (),
) -> Audit:
    return Audit(
        command="run",
        target=request.target.label,
        mode=request.mode,
        verdict="inconclusive",
        engine=engine.name(),
        runs=told_of(*runs),
        events=_NOTHING,
        observed=Observed(len(runs), 0, 0, 0),
        warnings=tuple(warnings),
        directory=str(directory),
        reason=reason,
    )


def _printed_identical(runs: Sequence[Finished]) -> bool | None:
    # What ends in the middle of an op may have said as much, or not.
    printed = {None} if runs[0].apart else {run.info.printed for run in runs}
    return None if printed == {None} else len(printed) == 1


def _manifests(runs: Sequence[Finished]) -> dict[str, Mapping[str, Any]]:
    return {run.info.name: run.info.manifest for run in runs}
