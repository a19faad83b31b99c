"""From "where" to "why": the origin's op by itself, experiments, and a cure that is tried out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from repro_audit.audit.experiments import Laboratory, applicable
from repro_audit.audit.isolation import isolated
from repro_audit.audit.session import Finished, Session
from repro_audit.audit.zoom import Closer
from repro_audit.control.pins import BY_NAME, PINS
from repro_audit.diagnose.explained import Meaning, explained
from repro_audit.diagnose.runs import compare_runs
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Cause, Confirmation, Cure, Experiment, Explanation, Observed, Replay

_CURE_RUNS = 2
_MEANINGS = {pin.name: Meaning(pin.cls, pin.remedy) for pin in PINS}


@dataclass(frozen=True, slots=True)
class Answer:
    """What experiments found, and the cause in their light."""

    explanation: Explanation
    cause: Cause


def explain(
    session: Session, runs: list[Finished], closer: Closer, observed: Observed, cause: Cause
) -> Answer:
    """Find out why runs diverge at `closer.origin`, whose likely cause is `cause`.

    First the op alone, on the inputs that it had. If it varies, settings are tried on it alone;
    else on the program, up to the origin: each alone, the likely one first, and together where none
    suffices. What cures is then tried on the whole program.
    """
    began = time.monotonic()
    key, devices = closer.origin.key, runs[0].trace.devices()
    replay = None
    if closer.captured is not None:
        replay = isolated(session, closer.captured, key, "replay")
    laboratory = Laboratory(session, key, _rate(session, closer, observed))
    experiments: list[Experiment] = []
    mode = session.request.mode
    cure: Cure | None = None
    if replay is not None and replay.varies and closer.captured is not None:
        for number, name in enumerate(applicable(mode, devices, call=True), 1):
            tried = isolated(session, closer.captured, key, f"replay-{number}", (name,))
            experiments.append(_on_call(name, tried, replay))
        cure = _cured(session, runs, _cures(experiments))
    else:
        names = applicable(mode, devices, call=False)
        names.sort(key=lambda name: BY_NAME[name].cls != cause.cls)
        for name in names:
            experiments.append(laboratory.held((name,)))
            if name == "filled-memory" and experiments[-1].differs is False:
                experiments.append(laboratory.filled())
        cures = _cures(experiments) or _together(laboratory, names, experiments)
        cure = _cured(session, runs, cures)
    seconds = round(time.monotonic() - began, 3)
    explanation = Explanation(replay, tuple(experiments), cure, seconds)
    return Answer(explanation, explained(cause, explanation, _MEANINGS, changed=False))


def explain_confirmation(session: Session, first: Finished, confirmation: Confirmation) -> Answer:
    """Find out what a confirming run changed that made it differ from the controlled `first`."""
    origin, cause = confirmation.origin, confirmation.cause
    assert origin is not None
    assert cause is not None
    began = time.monotonic()
    laboratory = Laboratory(session, origin.key, 0.5)
    reference = first
    if session.request.level == "modules":
        reference = laboratory.reference()
    experiments = laboratory.changed(reference)
    seconds = round(time.monotonic() - began, 3)
    explanation = Explanation(None, tuple(experiments), None, seconds)
    return Answer(explanation, explained(cause, explanation, _MEANINGS, changed=True))


def _rate(session: Session, closer: Closer, observed: Observed) -> float:
    """How often two runs differ at the origin, as far as is known; pairs of the zoom count too."""
    further = sum(pass_.runs // 2 for pass_ in session.passes if pass_.name in _ZOOMS)
    seen = sum(sighting.pairs for sighting in closer.sightings)
    pairs = max(observed.pairs + further, seen)
    return (seen + 0.5) / (pairs + 1)


_ZOOMS = {"interval", "optimizer", "tensors"}


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


def _cured(session: Session, runs: list[Finished], cures: list[tuple[str, ...]]) -> Cure | None:
    """The first cure, tried out on the whole program."""
    for pins in cures:
        try:
            cured = [session.cured(f"cured-{number}", pins) for number in range(1, _CURE_RUNS + 1)]
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
            slowdown=_slowdown(runs, cured),
        )
        if divergence is not None:
            cure = replace(cure, remaining=divergence.origin)
        return cure
    return None


def _slowdown(runs: list[Finished], cured: list[Finished]) -> float | None:
    """How much longer a step takes: the fastest of each side, against the noise."""
    plain, held = (
        [run.trace.closing.get("step_seconds") for run in side] for side in (runs, cured)
    )
    known, tried = [s for s in plain if s], [s for s in held if s]
    return round(min(tried) / min(known), 3) if known and tried else None
