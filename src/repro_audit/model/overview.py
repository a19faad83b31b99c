"""All of two runs at a glance: what was compared where, and how much of it differs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SiteExtent:
    """The events of one site in one phase, in all steps, and how many of them differ.

    `first_step` and `first_event` (its place in its process) are those of the first that differs;
    `rms` and `max_ulp` the largest that were measured. All four are None where there is none.
    `process` is '' for the program's own.
    """

    phase: str
    module: str
    op: str
    events: int
    differing: int
    first_step: int | None
    first_event: int | None
    rms: float | None
    max_ulp: int | None
    process: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A row for each of `modules`, in the order of execution, a column from each of `steps` on.

    `compared` and `differing` count events, `rms` is the largest that was measured, None where
    nothing was. Deep modules stand for what is in them where there are many.
    """

    modules: tuple[str, ...]
    steps: tuple[int, ...]
    compared: tuple[tuple[int, ...], ...]
    differing: tuple[tuple[int, ...], ...]
    rms: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Two of the runs, event by event, added up until it has a bounded size.

    `sites` are those that differ in the order of their first difference, then the others in the
    order of execution; `omitted` are not among them.
    """

    runs: tuple[str, str]
    heat: HeatMap
    sites: tuple[SiteExtent, ...]
    omitted: int
