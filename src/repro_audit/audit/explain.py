"""From "where" to "why": the origin's op by itself, experiments, and a cure that is tried out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from repro_audit.audit.experiments import Laboratory, but_for
from repro_audit.audit.isolation import isolated
from repro_audit.audit.relevant import Seen, relevant
from repro_audit.audit.session import Finished, Session
from repro_audit.audit.zoom import Closer
from repro_audit.control.pins import BY_NAME, PINS, pinned
from repro_audit.diagnose.explained import CHANGED, Meaning, explained
from repro_audit.diagnose.nondeterministic import chooses
from repro_audit.diagnose.runs import compare_runs
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import (
    Audit,
    Cause,
    Confirmation,
    Cure,
    Experiment,
    Explanation,
    ManifestDifference,
    Observed,
    Origin,
    Replay,
    SiteKey,
)

# A step's time is known from this many steps on, of which the first does not count.
_TIMED_STEPS = 3


def _meanings(differences: Sequence[ManifestDifference] = ()) -> dict[str, Meaning]:
    """What each pin proves that cures runs which differ in these fields of their manifests."""
    fields = {difference.field for difference in differences}
    return {
        pin.name: Meaning("config-difference" if pin.setting in fields else pin.cls, pin.remedy)
        for pin in PINS
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What experiments found, and the cause in their light."""

    explanation: Explanation
    cause: Cause


def explain(
    session: Session, runs: list[Finished], closer: Closer, audit: Audit, cause: Cause
) -> Answer:
    """Find out why runs diverge at `closer.origin`, whose likely cause is `cause`.

    First the op alone, on the inputs that it had. If it varies, settings are tried on it alone;
    else on the program, up to the origin: each alone, the likely one first, and together where none
    suffices. What cures is then tried on the whole program.
    """
    began = time.monotonic()
    # A draw too many is seen by what it changes.
    key, devices = closer.divergence.origin.key, runs[0].trace.devices()
    replay = None
    if closer.captured is not None and key.phase != "data":
        replay = isolated(session, closer.captured, key, "replay")
    laboratory = Laboratory(session, key, _rate(session, closer, audit.observed))
    meanings = _meanings(audit.manifest_differences)
    experiments: list[Experiment] = []
    mode = session.request.mode
    cure: Cure | None = None
    if replay is not None and replay.varies and closer.captured is not None:
        for number, name in enumerate(relevant(mode, devices), 1):
            tried = isolated(session, closer.captured, key, f"replay-{number}", (name,))
            experiments.append(_on_call(name, tried, replay))
        cure = _cured(session, runs, _cures(experiments), key)
    else:
        seen = Seen(runs, whole=session.request.level == "ops")
        names = relevant(mode, devices, seen=seen)
        names.sort(key=lambda name: meanings[name].cls != cause.cls)
        for name in names:
            among = 1 if meanings[name].cls == cause.cls else len(names)
            experiments.append(laboratory.held((name,), among=among))
            if experiments[-1].differs is False:
                if name == "filled-memory":
                    experiments.append(laboratory.filled())
                # What was likely is proven; else there may be more than one that decides.
                if meanings[name].cls == cause.cls:
                    break
        cures = _cures(experiments)
        if not cures and not laboratory.undecided:
            cures = _together(laboratory, names, experiments)
        cure = _cured(session, runs, cures, key)
        if cure is not None:
            origin = closer.divergence.origin
            experiments = [corrected(tried, cure, cures, origin) for tried in experiments]
    seconds = round(time.monotonic() - began, 3)
    explanation = Explanation(replay, tuple(experiments), cure, seconds)
    zoomed = closer.zoomed
    chosen = chooses(key.op, None if zoomed is None else zoomed.accumulates)
    found = explained(cause, explanation, meanings, changed=False, chosen=chosen)
    return Answer(explanation, found)


def explain_confirmation(session: Session, first: Finished, confirmation: Confirmation) -> Answer:
    """Find out what a confirming run changed that made it differ from the controlled `first`."""
    origin, cause = confirmation.origin, confirmation.cause
    assert origin is not None
    assert cause is not None
    began = time.monotonic()
    laboratory = Laboratory(session, origin.key, 0.5)
    # Not the first run: it went on after the step that experiments end with.
    experiments = laboratory.changed(laboratory.reference())
    culprit = next((tried.pins[0] for tried in experiments if tried.differs), None)
    cure = None if culprit is None else _held(session, first, culprit)
    seconds = round(time.monotonic() - began, 3)
    explanation = Explanation(None, tuple(experiments), cure, seconds)
    return Answer(explanation, explained(cause, explanation, {}, changed=True))


def _held(session: Session, first: Finished, culprit: str) -> Cure | None:
    """A confirming run with the culprit alone as it is under control, beside the controlled run."""
    try:
        run = session.cured("cured-1", **but_for(culprit))
    except InterruptedRunError:
        raise
    except ReproAuditError:
        return None
    found, _, _ = session.compare(first.trace, run.trace)
    return Cure(
        pins=(culprit,),
        remedies=(CHANGED[culprit].remedy,),
        runs=1,
        identical=found is None,
        remaining=None if found is None else found.origin,
    )


def _rate(session: Session, closer: Closer, observed: Observed) -> float:
    """How often two runs differ at the origin, as far as is known; pairs of the zoom count too."""
    further = sum(pass_.runs // 2 for pass_ in session.passes if pass_.name in _ZOOMS)
    seen = sum(one.pairs for one in closer.sightings)
    # Runs of an experiment end with the origin's step: what was seen later is not seen there.
    last = closer.divergence.origin.key.step
    here = sum(one.pairs for one in closer.sightings if one.origin.key.step <= last)
    return (here + 0.5) / (max(observed.pairs + further, seen) + 1)


_ZOOMS = {"interval", "optimizer", "tensors", "draws"}


def _on_call(name: str, tried: Replay, plain: Replay) -> Experiment:
    said = BY_NAME[name].said
    if tried.problem is not None:
        return Experiment((name,), said, "call", 0, None, tried.problem)
    # An op that differs in 1 of 10 pairs must agree in more than a handful to have been cured.
    missed = (1 - plain.differing_pairs / max(plain.pairs, 1)) ** tried.pairs
    if not tried.varies and missed > 0.05:
        said_why = f"only {tried.calls} calls could be made"
        return Experiment((name,), said, "call", tried.calls, None, said_why)
    return Experiment((name,), said, "call", tried.calls, tried.varies)


def _cures(experiments: Iterable[Experiment]) -> list[tuple[str, ...]]:
    """What made the divergence vanish; what experiments with it contradicts that is left out."""
    return [tried.pins for tried in experiments if tried.differs is False]


def _together(
    laboratory: Laboratory, names: list[str], experiments: list[Experiment]
) -> list[tuple[str, ...]]:
    """The smallest set that suffices where no single pin does; appends to `experiments`."""
    possible = {tried.pins[0] for tried in experiments if tried.differs is not None}
    pins = tuple(name for name in names if name in possible)
    if len(pins) < 2:
        return []
    experiments.append(laboratory.held(pins))
    if experiments[-1].differs is not False:
        return []
    for name in pins:
        fewer = tuple(other for other in pins if other != name)
        if len(fewer) < 2:
            break
        experiments.append(laboratory.held(fewer))
        if experiments[-1].differs is False:
            pins = fewer
    return [pins]


def _cured(
    session: Session, runs: list[Finished], cures: list[tuple[str, ...]], key: SiteKey
) -> Cure | None:
    """The first cure that cures the whole program, tried out; the last where none does."""
    plain = runs
    cure = None
    for number, pins in enumerate(cures, 1):
        try:
            cured = [session.cured(f"cured-{number}a", **pinned(pins))]
            if plain is runs and _seconds(cured):
                # Beside them, since a machine is not as fast all the time.
                plain = [*runs, session.observed("plain", "cure")]
            cured.append(session.cured(f"cured-{number}b", **pinned(pins)))
        except InterruptedRunError:
            raise
        except ReproAuditError:
            continue
        outcomes = compare_runs([run.trace for run in cured])
        divergence = outcomes.divergence
        cure = Cure(
            pins=pins,
            remedies=tuple(BY_NAME[name].remedy for name in pins),
            runs=len(cured),
            identical=divergence is None,
            slowdown=_slowdown(plain, cured),
            remaining=None if divergence is None else divergence.origin,
        )
        if divergence is None or not _same_site(divergence.origin.key, key):
            break
    return cure


def _same_site(one: SiteKey, other: SiteKey) -> bool:
    return (one.phase, one.module, one.op) == (other.phase, other.module, other.op)


def corrected(
    tried: Experiment, cure: Cure, cures: list[tuple[str, ...]], origin: Origin
) -> Experiment:
    """What agreed by chance, as trying it on the whole program then showed."""
    failed = cures[: cures.index(cure.pins)]
    if cure.remaining is not None and _no_later(cure.remaining, origin):
        failed = [*failed, cure.pins]
    return replace(tried, differs=True) if tried.pins in failed else tried


def _no_later(remaining: Origin, origin: Origin) -> bool:
    """True where what remains is the origin, or comes no later: then that was not cured."""
    if _same_site(remaining.key, origin.key):
        return True
    if remaining.key.process == origin.key.process:
        return remaining.event <= origin.event
    return remaining.key.step <= origin.key.step


def _slowdown(runs: list[Finished], cured: list[Finished]) -> float | None:
    """How much longer a step takes: the fastest of each side, against the noise."""
    known, tried = _seconds(runs), _seconds(cured)
    return round(min(tried) / min(known), 3) if known and tried else None


def _seconds(runs: list[Finished]) -> list[float]:
    """What a step took, of the runs that made enough of them."""
    return [
        float(run.trace.closing["step_seconds"])
        for run in runs
        if run.trace.steps >= _TIMED_STEPS and run.trace.closing.get("step_seconds")
    ]
