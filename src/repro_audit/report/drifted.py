"""The part of the text report that compares recordings: the start, the drift, and whose error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from repro_audit.model import Audit, Drift, Gap, OwnError, OwnErrors, Start
from repro_audit.report import phrases
from repro_audit.report.page import Sheet, glued
from repro_audit.report.phrases import printable

_T = TypeVar("_T")

_LAYERS_SHOWN = 8
_STEPS_SHOWN = 3
_ERRORS_SHOWN = 3


def render_drift(audit: Audit, page: Sheet) -> None:
    """What two recordings began with, how far they drift apart, and who errs by how much."""
    if audit.start is not None and not audit.start.equal:
        _start(audit, audit.start, page)
    if audit.drift is not None:
        _drift(audit.drift, page)
    if audit.own is not None:
        _own(audit.own, page)


def _start(audit: Audit, start: Start, page: Sheet) -> None:
    kinds = (
        ("initial weights", start.weights),
        ("inputs", start.inputs),
        ("random draws", start.draws),
    )
    said = [
        f"{phrases.number(differ)} of {phrases.number(had)} {name} differ"
        for name, (had, differ) in kinds
        if differ
    ]
    page.labelled("start", ", ".join(glued(one) for one in said))
    if audit.origin is not None:
        return
    if audit.command == "verify":
        page.labelled("", "another machine draws other numbers: --same-start takes the recorded")
    else:
        page.labelled(
            "",
            "another machine draws other numbers: record one with --capture full, and the other "
            "with --weights-from, --inputs-from and --draws-from it",
        )


def _drift(drift: Drift, page: Sheet) -> None:
    largest = drift.largest
    if largest is None:
        page.labelled("drift", "not measured: neither kept values of what differs")
        return
    apart = phrases.deviation(largest.deviation, largest.spec)
    page.labelled("drift", f"at most {apart} at {_place(largest, page)}")
    _beyond(drift, page)
    grown = drift.amplification
    if grown is not None and grown.factor >= 2:
        before, after = (_module(gap) for gap in (grown.before, grown.after))
        said = f"{phrases.short(grown.factor)} times from {before} to {after}"
        page.labelled("grows", f"{said} in step {grown.after.key.step}")
    if len(drift.layers) > 1:
        shown = _spread(drift.layers, _LAYERS_SHOWN)
        each = (f"{_module(gap)} {phrases.short(gap.deviation.rms)}" for gap in shown)
        page.labelled("depth", ", ".join(glued(one) for one in each))
    _steps(drift, page)
    if abs(drift.bias) >= 0.1:
        name = drift.runs[0] if drift.bias > 0 else drift.runs[1]
        share = (1 + abs(drift.bias)) / 2
        page.labelled("leans", f"{printable(name)} has the greater number in {share:.0%} of them")
    _values(drift, page)


def _beyond(drift: Drift, page: Sheet) -> None:
    asked = drift.tolerance
    explained = f"{phrases.number(asked.ulp)} ULP" if asked.ulp is not None else "rounding"
    unknown = drift.largest is not None and drift.largest.expected is None
    if drift.first_beyond is None and asked.ulp is None and unknown:
        page.labelled("beyond", "not known: how much is added up is told by ops, not by modules")
        return
    if drift.first_beyond is None:
        said = f"all that was measured is within {explained}"
        if asked.ulp is None:
            said = "rounding explains all that was measured"
        page.labelled("beyond", f"none: {said}")
        return
    first = drift.first_beyond
    allowed = ""
    if asked.ulp is None and first.expected is not None:
        allowed = f", rounding explains {phrases.short(first.expected)}"
    apart = phrases.deviation(first.deviation, first.spec)
    page.labelled(
        "beyond",
        f"{phrases.number(drift.beyond)} of {phrases.number(drift.measured)} are past "
        f"{explained}; first {_place(first, page)}: {apart}{allowed}",
    )


def _steps(drift: Drift, page: Sheet) -> None:
    said = []
    for step in _spread(drift.steps, _STEPS_SHOWN):
        parts = []
        if step.losses is not None:
            one, other = step.losses
            alike = repr(one) == repr(other)
            parts.append(f"loss {one:.7g} in both" if alike else f"loss {one:.9g} and {other:.9g}")
        if step.weights is not None:
            parts.append(f"weights {phrases.short(step.weights)} apart")
        if parts:
            said.append(glued(f"step {step.step}: {', '.join(parts)}"))
    if said:
        page.labelled("steps", "; ".join(said))


def _values(drift: Drift, page: Sheet) -> None:
    said = []
    if drift.sampled:
        said.append(f"{phrases.number(drift.sampled)} elements stand for a larger tensor")
    missing = drift.differing - drift.measured
    if missing:
        of = phrases.count(drift.differing, "differing event")
        said.append(f"{phrases.number(missing)} of {of} were not measured")
    if said:
        page.labelled("values", "; ".join(said))


def _own(own: OwnErrors, page: Sheet) -> None:
    if not own.events:
        page.labelled("own", "not measured: the recording kept nothing of what runs here")
        return
    said = f"given the recorded values, {phrases.number(own.differing)} of "
    said += f"{phrases.count(own.events, 'event')} err by themselves, "
    said += f"{phrases.number(own.beyond) if own.beyond else 'none'} beyond rounding"
    page.labelled("own", said)
    first = own.first_beyond or own.first
    if first is not None:
        page.labelled("", f"first {_error(first, page)}")
    for error in own.errors[:_ERRORS_SHOWN]:
        if first is None or error.gap.key != first.gap.key:
            page.labelled("", f"large {_error(error, page)}")
    _nearer(own, page)


def _error(error: OwnError, page: Sheet) -> str:
    said = f"{_place(error.gap, page)}: {glued(phrases.short(error.own.rms))} by itself"
    if error.total is not None:
        said += f", {glued(phrases.short(error.total.rms))} with what it inherits"
    if error.here is not None and error.there is not None:
        here, there = phrases.short(error.here.rms), phrases.short(error.there.rms)
        said += f"; from float64 {glued(f'{here} here')}, {glued(f'{there} there')}"
    return said


def _nearer(own: OwnErrors, page: Sheet) -> None:
    counts = own.nearer
    here, there = counts.get("here", 0), counts.get("there", 0)
    if not here and not there:
        return
    other = own.differing - here - there
    said = f"this machine in {phrases.number(here)}, the recorded one in {phrases.number(there)}"
    page.labelled("nearer", f"to float64: {said}" + (f", neither in {other}" if other else ""))


def _place(gap: Gap, page: Sheet) -> str:
    return page.path(phrases.site(gap.key))


def _module(gap: Gap) -> str:
    return printable(gap.key.module) or phrases.op_name(gap.key.op)


def _spread(items: Sequence[_T], count: int) -> list[_T]:
    """At most `count`, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    last = len(items) - 1
    return [items[round(at * last / (count - 1))] for at in range(count)]
