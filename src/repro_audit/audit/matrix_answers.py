"""What the cells of a matrix say: each against the baseline, and each axis by its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from repro_audit.audit.recording import BUDGET
from repro_audit.audit.session import Finished, Session
from repro_audit.diagnose.align import align
from repro_audit.diagnose.cells import (
    Difference,
    Way,
    difference,
    drawn_before,
    draws_forward,
    rows,
    telling_gap,
)
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.runs import compare_runs
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Axis, AxisAnswer, Cell, EventCounts, Given
from repro_audit.trace import Trace

# With these the program may draw other numbers, though nothing else changes.
_GIVEN = frozenset({"batch", "device", "isa"})
_DRAWING = _GIVEN | {"compile", "dtype"}


@dataclass(slots=True)
class Sample:
    """A cell and what was run of it: `changes` are the fields of a plan that make the cell."""

    at: int
    name: str
    settings: Mapping[str, str]
    changes: dict[str, Any]
    runs: list[Finished] = field(default_factory=list)
    error: ReproAuditError | None = None
    seconds: float | None = None
    # Traces of further runs, which look at it as a comparison needs.
    witnesses: dict[str, Trace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Varying:
    """Where a cell's own runs differ."""

    divergence: Divergence
    counts: EventCounts


class Comparisons:
    """Compares cells, two at a time, and remembers; runs them again where that takes other eyes."""

    def __init__(
        self, session: Session, samples: Sequence[Sample], axes: Sequence[Axis], *, grid: bool
    ) -> None:
        self._session = session
        self._samples = samples
        self._axes = axes
        self._grid = grid
        self._known: dict[tuple[int, int], Difference | ReproAuditError] = {}
        self._varying = {sample.at: _varying(sample) for sample in samples if sample.runs}
        # The first cell of each group, by its number.
        self._groups: list[Sample] = []
        self._cells: tuple[Cell, ...] = ()

    def cells(self) -> tuple[Cell, ...]:
        """Each cell against the baseline."""
        self._cells = tuple(self._cell(sample) for sample in self._samples)
        return self._cells

    def answers(self) -> tuple[AxisAnswer, ...]:
        """Each axis, by the pairs of cells that differ in it alone; after `cells`."""
        return tuple(self._answer(axis) for axis in self._axes)

    # -- cells ----------------------------------------------------------------------------------

    def _cell(self, sample: Sample) -> Cell:
        names = tuple(run.info.name for run in sample.runs)
        if sample.error is not None:
            reason = sample.error.in_a_line
            return Cell(sample.name, sample.settings, names, "failed", reason=reason)
        varying = self._varying[sample.at]
        if varying is not None:
            found = varying.divergence
            a, b = found.a, found.b
            return Cell(
                sample.name,
                sample.settings,
                names,
                "varies",
                events=varying.counts,
                origin=found.origin,
                largest=telling_gap(a, b, align(a, b)),
                step_seconds=sample.seconds,
            )
        if sample.at == 0:
            self._groups.append(sample)
            return Cell(
                sample.name, sample.settings, names, "baseline", 0, step_seconds=sample.seconds
            )
        return self._against_baseline(sample, names)

    def _against_baseline(self, sample: Sample, names: tuple[str, ...]) -> Cell:
        baseline = self._samples[0]
        found = self._compared(baseline, sample)
        if isinstance(found, ReproAuditError) or found.differs is None:
            broken = isinstance(found, ReproAuditError)
            if isinstance(found, ReproAuditError):
                reason = found.in_a_line
            else:
                reason = found.reason or "nothing of it can be compared with the baseline"
            return Cell(
                sample.name,
                sample.settings,
                names,
                "failed" if broken else "incomparable",
                step_seconds=sample.seconds,
                reason=reason,
            )
        told = Cell(
            sample.name,
            sample.settings,
            names,
            "differs" if found.differs else "identical",
            events=found.counts,
            origin=found.origin,
            largest=found.largest,
            step_seconds=sample.seconds,
            reason="random numbers are drawn differently there" if found.drawn else None,
        )
        unsteady = self._varying[0]
        if unsteady is None:
            return replace(told, group=self._group(sample))
        changed = self._changed(baseline, sample)
        if found.origin is not None and not _before(found, unsteady.divergence, changed):
            # What the baseline itself gives in one run and not in the other proves nothing.
            return replace(told, outcome="varies", reason="as the baseline itself does")
        return told

    def _group(self, sample: Sample) -> int:
        """The number of the cells that it equals; a new one where there are none.

        Where two cells have more than another batch or graph apart, they are not compared: that
        would take further runs, to find what is hardly ever equal.
        """
        for number, first in enumerate(self._groups):
            changed = self._changed(first, sample)
            if first.at and len(changed) > 1 and changed & {"batch", "compile", "dtype"}:
                continue
            found = self._compared(first, sample)
            if isinstance(found, Difference) and found.differs is False:
                return number
        self._groups.append(sample)
        return len(self._groups) - 1

    # -- axes -----------------------------------------------------------------------------------

    def _answer(self, axis: Axis) -> AxisAnswer:
        told = False
        for sample in self._samples:
            value = sample.settings[axis.name]
            if value == axis.values[0]:
                continue
            against = self._neighbour(sample, axis)
            cell = self._cells[sample.at]
            if against.at == 0:
                if cell.outcome in {"differs", "varies"} and self._varying[0] is None:
                    return _changes(axis, value, cell.name, against.name, cell)
                if cell.outcome == "differs":
                    return _changes(axis, value, cell.name, against.name, cell)
                told |= cell.outcome == "identical"
                continue
            if sample.error is not None or against.error is not None:
                continue
            varying = [one for one in (sample, against) if self._varying[one.at] is not None]
            if len(varying) == 1:
                # The one does not do what the other does.
                unsteady = self._cells[varying[0].at]
                return _changes(axis, value, cell.name, against.name, unsteady)
            if varying:
                continue
            found = self._compared(against, sample)
            if isinstance(found, ReproAuditError) or found.differs is None:
                continue
            if found.differs:
                return _changes(axis, value, cell.name, against.name, found)
            told = True
        return AxisAnswer(axis.name, False if told else None)

    def _neighbour(self, sample: Sample, axis: Axis) -> Sample:
        """The cell with the same settings but the axis's first value."""
        wanted = {**sample.settings, axis.name: axis.values[0]}
        return next(one for one in self._samples if one.settings == wanted)

    # -- two cells ------------------------------------------------------------------------------

    def _compared(self, one: Sample, other: Sample) -> Difference | ReproAuditError:
        key = one.at, other.at
        if key not in self._known:
            try:
                self._known[key] = self._difference(one, other)
            except InterruptedRunError:
                raise
            except ReproAuditError as error:
                self._known[key] = error
        return self._known[key]

    def _difference(self, one: Sample, other: Sample) -> Difference:
        changed = self._changed(one, other)
        found, levels = self._found(one, other, changed)
        if found.origin is None or not changed & _DRAWING:
            return found
        # What draws is no arithmetic: where it could not be held, nothing is said of that.
        if found.drawn and changed & _GIVEN:
            return replace(found, reason="random numbers are drawn differently there")
        if "modules" in levels and drawn_before(self._eager(one), found.origin):
            return replace(found, reason="random numbers are drawn there")
        return found

    def _found(
        self, one: Sample, other: Sample, changed: set[str]
    ) -> tuple[Difference, tuple[str, str]]:
        """How two cells compare, and the levels of the traces that say so."""
        graph = bool(changed & {"compile", "dtype"})
        if "batch" in changed:
            return self._rows(one, other, graph=graph)
        level = "modules" if graph else None
        a, b = (self._trace(sample, level) for sample in (one, other))
        levels = a.plan["level"], b.plan["level"]
        way: Way = "events"
        if "dtype" in changed:
            way = "computed"
        elif graph:
            way = "boundaries"
        elif "device" in changed or levels[0] != levels[1]:
            way = "values"
        return difference(a, b, way), levels

    def _rows(
        self, one: Sample, other: Sample, *, graph: bool
    ) -> tuple[Difference, tuple[str, str]]:
        """How the rows of two batches compare, in the order in which they then agree."""
        batches = int(one.settings["batch"]), int(other.settings["batch"])
        for inside in (False, True):
            a, b = (self._whole(sample, graph=graph, inside=inside) for sample in (one, other))
            levels = a.plan["level"], b.plan["level"]
            found = rows(a, b, batches)
            if found.origin is None or not found.mixed:
                return found, levels
        reason = "random numbers are drawn where batch and others are one dimension"
        return replace(found, reason=reason), levels

    def _eager(self, sample: Sample) -> Trace:
        """A trace of it that has its operators, whatever compiles them."""
        changes = sample.changes
        if changes["level"] == "ops" and changes.get("compile") is None:
            return sample.runs[0].trace
        return self._witness(sample, "draws", level="ops", compile=None, steps=1)

    def _changed(self, one: Sample, other: Sample) -> set[str]:
        """The axes that two cells differ in."""
        names = (axis.name for axis in self._axes)
        return {name for name in names if one.settings[name] != other.settings[name]}

    def _trace(self, sample: Sample, level: str | None) -> Trace:
        """A trace of it at a level; its own where that will do."""
        if level is None or sample.changes["level"] == level:
            return sample.runs[0].trace
        return self._witness(sample, level, level=level)

    def _whole(self, sample: Sample, *, graph: bool, inside: bool) -> Trace:
        """A trace of its first step with outputs kept whole.

        Its rows draw what those of the largest batch drew: the numbers of a generator go by how
        many were drawn before. Only an operator's own event can be given them.
        """
        compiled = sample.changes.get("compile") is not None
        level = "modules" if graph or compiled else "ops"
        whole = {"level": level, "budget": BUDGET, "steps": 1}
        largest = self._largest(sample)
        drawn = self._witness(largest, f"rows-{level}", **whole)
        if not draws_forward(drawn):
            return self._witness(sample, f"rows-{level}", **whole)
        if any(not device.startswith("cpu") for device in drawn.devices()):
            # A run that is given draws computes attention so there, and both are to.
            whole["pins"] = ("math-attention",)
            drawn = self._witness(largest, f"math-{level}", **whole)
        if sample is largest:
            return drawn
        kept = tuple(given for given in sample.changes.get("given", ()) if given.what != "draws")
        whole["given"] = (*kept, Given("draws", str(drawn.path.resolve()), inside))
        return self._witness(sample, f"rows-{level}{'-inside' if inside else ''}", **whole)

    def _largest(self, sample: Sample) -> Sample:
        """The cell with the same settings but the largest batch."""
        most = max((one.settings["batch"] for one in self._samples), key=int)
        wanted = {**sample.settings, "batch": most}
        found = (one for one in self._samples if one.settings == wanted and one.error is None)
        return next(found, sample)

    def _witness(self, sample: Sample, name: str, **changes: Any) -> Trace:
        found = sample.witnesses.get(name)
        if found is None:
            self._session.total += 1
            run = self._session.observed(
                f"{name}-{sample.at:03}", "witness", **{**sample.changes, **changes}
            )
            found = sample.witnesses[name] = run.trace
        return found


def _varying(sample: Sample) -> _Varying | None:
    outcomes = compare_runs([run.trace for run in sample.runs]) if len(sample.runs) > 1 else None
    if outcomes is None or outcomes.divergence is None:
        return None
    return _Varying(outcomes.divergence, outcomes.counts)


def _before(found: Difference, own: Divergence, changed: set[str]) -> bool:
    """True if cells differ before the baseline's own runs do.

    Runs that look at a batch or a graph number their events otherwise than the baseline's own do:
    of batches, which are compared forwards, the phase tells; of graphs nothing does.
    """
    assert found.origin is not None
    ours, theirs = found.origin, own.origin
    if changed & {"compile", "dtype"}:
        return False
    if "batch" in changed:
        return theirs.key.step > 0 or theirs.key.phase not in ("data", "forward")
    return (ours.key.step, ours.event) < (theirs.key.step, theirs.event)


def _changes(
    axis: Axis, value: str, cell: str, against: str, found: Cell | Difference
) -> AxisAnswer:
    return AxisAnswer(axis.name, True, value, cell, against, found.origin, found.largest)
