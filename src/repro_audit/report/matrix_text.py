"""The part of the text report that is a matrix: which axis changes the bits, and every cell."""

from __future__ import annotations

from collections.abc import Iterable

from repro_audit.model import Audit, Axis, AxisAnswer, Cell, Gap, Matrix, Origin
from repro_audit.report import phrases
from repro_audit.report.page import Sheet, glued
from repro_audit.report.phrases import printable

_AXIS = 13
# Wider names stand on a line of their own.
_NAME, _RESULT, _STEP = 22, 11, 9
# Columns that a place needs beside them.
_LEAST = 24
_OUTCOMES = {
    "baseline": "",
    "identical": "the same",
    "differs": "differs",
    "varies": "differs from run to run",
    "failed": "failed",
    "incomparable": "not comparable",
}
_UNKNOWN = ("failed", "incomparable")
# The rungs of compilation, in the order in which each adds to the one before.
_LADDER = ("eager", "aot_eager", "aot_eager_decomp_partition", "inductor")


def subject_of(audit: Audit, matrix: Matrix) -> str:
    """What the verdict is about: `isa and batch change the bits`."""
    runs = phrases.count(audit.observed.runs, "run")
    size = f"({phrases.count(len(matrix.cells), 'cell')}, {runs})"
    told: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for axis, answer in zip(matrix.axes, matrix.answers, strict=True):
        unknown = any(cell.outcome in _UNKNOWN for cell in _cells(axis, matrix))
        # Of values without an answer it is not known whether they change something.
        changes = answer.changes or (None if unknown else answer.changes)
        told[changes].append(printable(axis.name))
    said = []
    if told[True]:
        verb = "changes" if len(told[True]) == 1 else "change"
        said.append(f"{phrases.listing(told[True])} {verb} the bits")
        if told[False]:
            verb = "does" if len(told[False]) == 1 else "do"
            said.append(f"{phrases.listing(told[False])} {verb} not")
    elif any(cell.outcome == "varies" for cell in matrix.cells):
        return f"runs of one cell differ {size}"
    elif told[False]:
        verb = "changes" if len(told[False]) == 1 else "change"
        said.append(f"{phrases.listing(told[False])} {verb} nothing")
    if told[None]:
        said.append(f"of {phrases.listing(told[None])} it is not known")
    return f"{'; '.join(said)} {size}"


def render_matrix(matrix: Matrix, page: Sheet, *, table: bool = True) -> None:
    """Each axis on a line, then the cells as a `table`."""
    width = min(_AXIS, max(len(printable(axis.name)) for axis in matrix.axes)) + 2
    for axis, answer in zip(matrix.axes, matrix.answers, strict=True):
        _axis(axis, answer, matrix, page, width)
    if table:
        _table(matrix, page)


def _axis(axis: Axis, answer: AxisAnswer, matrix: Matrix, page: Sheet, width: int) -> None:
    said = _verdict(axis, answer, matrix)
    if not matrix.grid:
        each = _values(axis, answer, matrix, page)
        said += f": {'; '.join(each)}" if each else ""
    elif answer.changes and answer.origin is not None:
        said += f": {printable(answer.value or '')} from {_place(answer.origin, page)}"
        said += _much(answer.origin, answer.largest)
        said += f", against {printable(answer.against or '')}"
    name = printable(axis.name)
    if len(name) > _AXIS:
        page.paragraph(f"{name}  {said}", indent=2)
    else:
        page.paragraph(said, indent=2, lead=name.ljust(width), style="bold")


def _verdict(axis: Axis, answer: AxisAnswer, matrix: Matrix) -> str:
    if answer.changes is None:
        return "not known: nothing of it could be compared"
    if axis.name == "batch":
        return "not batch invariant" if answer.changes else "batch invariant"
    if axis.name == "compile" and answer.changes and not matrix.grid:
        rung = _rung(axis, matrix)
        return f"equality breaks at {rung}" if rung else "changes the bits"
    return "changes the bits" if answer.changes else "changes nothing"


def _values(axis: Axis, answer: AxisAnswer, matrix: Matrix, page: Sheet) -> list[str]:
    """How each value compares with the baseline, those together that differ at one place."""
    found: dict[str, list[Cell]] = {}
    for cell in _cells(axis, matrix):
        said = _OUTCOMES[cell.outcome]
        if cell.outcome == "differs" and cell.origin is not None:
            said = f"from {_place(cell.origin, page)}"
        elif cell.outcome == "identical" and not answer.changes:
            continue
        found.setdefault(said, []).append(cell)
    each = []
    for said, cells in found.items():
        values = ", ".join(printable(cell.settings[axis.name]) for cell in cells)
        # The one that is furthest from the baseline tells how much.
        most = max(cells, key=lambda cell: cell.largest.deviation.rms if cell.largest else 0.0)
        much = "" if most.origin is None else _much(most.origin, most.largest)
        each.append(f"{values} {said}{much}")
    return each


def _rung(axis: Axis, matrix: Matrix) -> str | None:
    """The first rung of the ladder whose result is not that of the baseline."""
    differing = {c.settings[axis.name] for c in _cells(axis, matrix) if c.outcome == "differs"}
    return next((rung for rung in _LADDER if rung in differing), None)


def _cells(axis: Axis, matrix: Matrix) -> Iterable[Cell]:
    """The cells that differ from the baseline's in this axis alone."""
    for cell in matrix.cells[1:]:
        changed = [n for n, value in cell.settings.items() if value != matrix.baseline[n]]
        if changed == [axis.name]:
            yield cell


def _place(origin: Origin, page: Sheet) -> str:
    parts = phrases.site(origin.key, rank=origin.rank, recompute=origin.recompute)
    return page.path(parts)


def _much(origin: Origin, largest: Gap | None) -> str:
    if origin.kind == "structural":
        return " (one does what the other does not)"
    if largest is None:
        return ""
    return f" {glued(f'(at most {phrases.short(largest.deviation.rms)} of its size)')}"


def _table(matrix: Matrix, page: Sheet) -> None:
    names = [printable(cell.name) for cell in matrix.cells]
    width = min(_NAME, max(len(name) for name in ["cell", *names]))
    timed = any(cell.step_seconds is not None for cell in matrix.cells)

    def lead(name: str, came_out: str, step: str) -> str:
        return f"{name.ljust(width)}  {came_out.ljust(_RESULT)}{step.ljust(_STEP) if timed else ''}"

    narrow = page.width < len(lead("", "", "")) + _LEAST
    if not narrow:
        head = lead("cell", "result", "step")
        page.paragraph("first difference", indent=2, lead=head, style="dim")
    for cell, name in zip(matrix.cells, names, strict=True):
        said = "; ".join(_said(cell, matrix, page))
        outcome, step = result(cell), step_time(cell, matrix.cells[0])
        if narrow:
            page.paragraph("  ".join(filter(None, (name, outcome, step))), indent=2)
            if said:
                page.paragraph(said, indent=4)
            continue
        if len(name) > width:
            page.paragraph(name, indent=2)
        before = lead(name if len(name) <= width else "", outcome, step)
        page.paragraph(said, indent=2, lead=before if said else before.rstrip())


def result(cell: Cell) -> str:
    """How a cell came out, in a word; nothing for the baseline."""
    if cell.outcome == "identical":
        return "same"
    if cell.outcome == "baseline":
        return ""
    if cell.outcome == "differs" and cell.group is not None:
        return f"differs {cell.group}"
    return "unknown" if cell.outcome == "incomparable" else cell.outcome


def step_time(cell: Cell, baseline: Cell) -> str:
    """The time of a step: the baseline's in seconds, that of others as its multiple."""
    if cell.step_seconds is None:
        return ""
    if cell is baseline or not baseline.step_seconds:
        return _seconds(cell.step_seconds)
    times = cell.step_seconds / baseline.step_seconds
    return f"{times:.2f} x" if times < 100 else f"{phrases.number(round(times))} x"


def _seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _said(cell: Cell, matrix: Matrix, page: Sheet) -> list[str]:
    said = []
    if cell is matrix.cells[0]:
        settings = (f"{axis.name}={matrix.baseline[axis.name]}" for axis in matrix.axes)
        said.append(", ".join(glued(printable(one)) for one in settings))
    if cell.origin is not None:
        # A place in a library says little, and takes lines.
        caused_by = cell.origin.caused_by
        sites = cell.origin.call_site, caused_by.call_site if caused_by is not None else None
        own = not any(site is not None and site.startswith("/") for site in sites)
        where = phrases.whereabouts(cell.origin) if own else ""
        said.append(_place(cell.origin, page) + (f"  {glued(f'({where})')}" if where else ""))
    return [*said, *notes(cell)]


def notes(cell: Cell) -> list[str]:
    """Why a cell failed, and what of it could not be compared."""
    said = [] if cell.reason is None else [printable(cell.reason)]
    events = cell.events
    if events is not None and events.incomparable:
        said.append(f"{phrases.count(events.incomparable, 'event')} not comparable")
    if events is not None and events.unaligned:
        said.append(f"{phrases.count(events.unaligned, 'event')} without counterpart")
    return said
