"""What a matrix of conditions finds: which axis changes the bits, where first, by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from repro_audit.model.audit import EventCounts, Origin
from repro_audit.model.drift import Gap

Outcome = Literal["baseline", "identical", "differs", "varies", "failed", "incomparable"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A condition that is varied, and its values; the first is the baseline's."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """The program under one set of conditions, and how that compares with the baseline.

    `settings` has a value for each axis. `runs` are names among the audit's runs. Cells whose
    results are equal share a `group`, 0 is the baseline's; None where a cell has no one result.
    `events` and `origin` are against the baseline, or, where the cell `varies`, between its own
    runs; `largest` is the largest gap in what is computed forwards and in weights, or, where only
    they differ, in gradients, of what was sampled. `step_seconds` is the median time of a step that
    nobody observed, None where none was timed. `reason` says why a cell failed, or what could not
    be compared.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[str, ...]
    outcome: Outcome
    group: int | None = None
    events: EventCounts | None = None
    origin: Origin | None = None
    largest: Gap | None = None
    step_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AxisAnswer:
    """Whether an axis changes the bits: None where no cell of it could be compared.

    `cell` is the first that differs from `against`, of which it has all but this axis's value;
    `value` is its value there. `origin` and `largest` are between these two.
    """

    axis: str
    changes: bool | None
    value: str | None = None
    cell: str | None = None
    against: str | None = None
    origin: Origin | None = None
    largest: Gap | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """The axes, the cells (the baseline's first) and what they say of each axis.

    `grid` tells whether every combination was run, or one axis changed at a time.
    """

    axes: tuple[Axis, ...]
    baseline: Mapping[str, str]
    cells: tuple[Cell, ...]
    answers: tuple[AxisAnswer, ...]
    grid: bool
