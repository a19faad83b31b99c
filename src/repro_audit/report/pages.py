"""What reports that are pages show beside the story: figures and tables, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from repro_audit.model import Audit, Json, Matrix, Overview, RunInfo, UlpDivergence
from repro_audit.report import matrix_text, phrases
from repro_audit.report.phrases import printable

_INFINITE = 1e308
_UNLIKE = (
    ("varies", "vary from run to run"),
    ("failed", "failed"),
    ("incomparable", "could not be compared"),
)


def tiles(audit: Audit) -> Iterator[dict[str, str]]:
    """The figures that matter most, each with what it counts."""
    if audit.matrix is not None:
        yield from _matrix_tiles(audit.matrix)
        return
    events = audit.events
    if audit.verdict in {"different-program", "inconclusive"}:
        yield {"number": phrases.number(events.compared), "caption": "events could be compared"}
    else:
        differ = f"{phrases.number(events.divergent)} of {phrases.number(events.compared)}"
        yield {"number": differ, "caption": "events differ"}
    both = "recordings" if audit.command == "compare" else "runs"
    yield {"number": str(audit.observed.runs), "caption": f"{both} compared"}
    steps = audit.runs[0].manifest.get("steps") if audit.runs else None
    if isinstance(steps, int):
        yield {"number": phrases.number(steps), "caption": "step" if steps == 1 else "steps"}
    if audit.origin is not None and audit.origin.ulp is not None:
        yield from _origin_tiles(audit.origin.ulp)
    if audit.drift is not None and audit.drift.largest is not None:
        largest = audit.drift.largest.deviation
        yield {"number": phrases.short(largest.rms), "caption": "of its size, the largest drift"}
        beyond = f"{phrases.number(audit.drift.beyond)} of {phrases.number(audit.drift.measured)}"
        asked = audit.drift.tolerance.ulp
        past = "what rounding explains" if asked is None else f"{phrases.number(asked)} ULP"
        yield {"number": beyond, "caption": f"are beyond {past}"}
    if audit.own is not None and audit.own.events:
        own = f"{phrases.number(audit.own.differing)} of {phrases.number(audit.own.events)}"
        yield {"number": own, "caption": "events err by themselves"}


def _origin_tiles(ulp: UlpDivergence) -> Iterator[dict[str, str]]:
    if ulp.identical:
        # Further runs were measured, and did not differ there.
        return
    share = f"{phrases.number(ulp.differing)} of {phrases.number(ulp.numel)}"
    yield {"number": share, "caption": "elements differ at the origin"}
    if ulp.max_ulp:
        apart = "ULP apart there, at most" if phrases.has_ulp(ulp) else "apart there, at most"
        yield {"number": phrases.number(ulp.max_ulp), "caption": apart}
    if ulp.unordered:
        caption = "elements there are NaN against a number"
        yield {"number": phrases.number(ulp.unordered), "caption": caption}


def _matrix_tiles(matrix: Matrix) -> Iterator[dict[str, str]]:
    outcomes = [cell.outcome for cell in matrix.cells]
    yield {"number": str(len(outcomes)), "caption": "sets of conditions"}
    groups = {cell.group for cell in matrix.cells if cell.group is not None}
    yield {
        "number": str(len(groups)),
        "caption": "different results" if len(groups) > 1 else "result",
    }
    for outcome, caption in _UNLIKE:
        if outcome in outcomes:
            yield {"number": str(outcomes.count(outcome)), "caption": caption}
    changing = sum(answer.changes is True for answer in matrix.answers)
    yield {"number": f"{changing} of {len(matrix.axes)}", "caption": "axes change the bits"}


def sites(overview: Overview | None) -> dict[str, Any] | None:
    """The table of what was compared: columns, rows of cells, and what it says."""
    if overview is None or not overview.sites:
        return None
    one, other = (printable(run) for run in overview.runs)
    says = f"Of {one} and {other}, each op of each module, all steps together"
    says += ": those that differ first, in the order in which they do."
    if overview.omitted:
        says += f" {phrases.number(overview.omitted)} more that are alike are not listed."
    measured = any(site.rms is not None for site in overview.sites)
    several = any(site.process for site in overview.sites)
    columns = [
        *([("process", "text", "empty for the program's own")] * several),
        ("phase", "text", ""),
        ("module", "text", ""),
        ("op", "text", ""),
        ("events", "size", "how many were compared"),
        ("differ", "size", "how many of them differ"),
        ("first in step", "number", "the step in which it differs first"),
        ("first event", "number", "the place in its process of the first that differs"),
    ]
    if measured:
        columns += [
            ("of its size", "size", "the largest difference that was measured"),
            ("ULP", "size", "the largest distance of two elements"),
        ]
    rows = []
    for site in overview.sites:
        cells = [
            *([_text(printable(site.process))] * several),
            _text(printable(site.phase)),
            _text(printable(site.module)),
            _text(phrases.op_name(site.op)),
            _figure(site.events),
            _figure(site.differing),
            _figure(site.first_step),
            _figure(site.first_event),
        ]
        if measured:
            # Beyond any size, and last among them where it is no number.
            rms = site.rms if site.rms is None or math.isfinite(site.rms) else _INFINITE
            size = "" if site.rms is None else phrases.short(site.rms)
            cells += [{"text": size, "sort": rms, "number": True}, _figure(site.max_ulp)]
        rows.append({"differs": site.differing > 0, "cells": cells})
    named = [{"name": name, "kind": kind, "about": about} for name, kind, about in columns]
    return {"says": says, "columns": named, "rows": rows}


def _text(text: str) -> dict[str, Any]:
    return {"text": text, "sort": None, "number": False}


def _figure(value: int | None) -> dict[str, Any]:
    text = "" if value is None else phrases.number(value)
    return {"text": text, "sort": value, "number": True}


def cells(matrix: Matrix | None) -> dict[str, Any] | None:
    """The table of a matrix: each cell's conditions, its result, and what a step costs."""
    if matrix is None:
        return None
    timed = any(cell.step_seconds is not None for cell in matrix.cells)
    axes = [printable(axis.name) for axis in matrix.axes]
    columns = [*axes, "result", "first difference", "apart", *(["a step"] * timed), "notes"]
    rows = []
    # One result after the other, the baseline's first; what has none last.
    order = sorted(matrix.cells, key=lambda cell: (cell.group is None, cell.group or 0))
    for number, cell in enumerate(order):
        settings = [
            {"text": printable(value), "changed": value != matrix.baseline[axis.name]}
            for axis in matrix.axes
            for value in (cell.settings[axis.name],)
        ]
        place = "" if cell.origin is None else " · ".join(phrases.site(cell.origin.key))
        apart = "" if cell.largest is None else phrases.short(cell.largest.deviation.rms)
        step = [matrix_text.step_time(cell, matrix.cells[0])] * timed
        notes = "; ".join(matrix_text.notes(cell))
        rows.append(
            {
                "settings": settings,
                "outcome": cell.outcome,
                "group": cell.group,
                "begins": number > 0 and cell.group != order[number - 1].group,
                "result": matrix_text.result(cell) or "baseline",
                "texts": [place, apart, *step, notes],
            }
        )
    return {"columns": columns, "rows": rows}


def differences(audit: Audit) -> dict[str, Any] | None:
    """The table of recorded conditions that are not the same in every run."""
    if not audit.manifest_differences:
        return None
    names = list(dict.fromkeys(run for d in audit.manifest_differences for run in d.values))
    rows = [
        {
            "field": printable(difference.field),
            "values": [phrases.setting(difference.values.get(name)) for name in names],
        }
        for difference in audit.manifest_differences
    ]
    return {"runs": [printable(name) for name in names], "rows": rows}


def runs(audit: Audit) -> dict[str, Any]:
    """The table of the runs."""
    columns = ("run", "steps", "seconds", "mode", "device", "torch", "threads", "processor")
    return {"columns": columns, "rows": [list(_run(run)) for run in audit.runs]}


def _run(run: RunInfo) -> Iterator[str]:
    def found(*path: str) -> str:
        value: Json = run.manifest
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return "" if value is None else printable(str(value))

    yield printable(run.name)
    yield found("steps")
    yield "" if run.seconds is None else f"{run.seconds:.1f}"
    yield found("asked", "mode")
    yield found("asked", "device")
    yield found("versions", "torch")
    yield found("torch", "get_num_threads")
    yield found("platform", "processor")
