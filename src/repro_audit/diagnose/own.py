"""Own error against inherited error: what each event errs when it is given the other's values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from repro_audit.diagnose.drift import gap_at, gap_of, is_beyond
from repro_audit.diagnose.tolerance import expected
from repro_audit.model import Deviation, Event, Gap, Json, OwnError, OwnErrors, Tolerance
from repro_audit.model.codes import CONDITION, HERE, OWN, THERE
from repro_audit.trace import Trace

_SHOWN = 20
_UPDATE = 8

_Place = tuple[int, int, tuple[str, str], str, str]


def own_errors(recorded: Trace, forced: Trace, run: Trace, tolerance: Tolerance) -> OwnErrors:
    """What events err by themselves: those of `forced`, which was given all that `recorded` kept.

    `run` is one that was given no more than the same start: what its events are off by is the total
    that is told beside. Costs a lookup an event.
    """
    nearer: Counter[str] = Counter()
    differing: list[OwnError] = []
    events = unlike = 0
    calls = _calls(recorded), _calls(forced)
    for i in range(len(forced)):
        measured = forced.measured(i)
        if not measured:
            continue
        place = _place(forced, i)
        if calls[0][place] != calls[1][place]:
            # Which of them is which is not known.
            unlike += 1
            continue
        events += 1
        found = _largest(forced, i, measured, tolerance)
        if found is None:
            continue
        differing.append(found)
        nearer[_nearer(found)] += 1
    beyond = [error for error in differing if error.gap.beyond]
    largest = sorted(differing, key=_beyond_rounding, reverse=True)[:_SHOWN]

    def with_total(error: OwnError | None) -> OwnError | None:
        return None if error is None else replace(error, total=_total(error, recorded, run))

    return OwnErrors(
        events=events,
        differing=len(differing),
        beyond=len(beyond),
        missing=unlike + int(forced.closing.get("not_given", {}).get("all", 0)),
        nearer=dict(sorted(nearer.items())),
        first=with_total(differing[0] if differing else None),
        first_beyond=with_total(beyond[0] if beyond else None),
        errors=tuple(error for one in largest if (error := with_total(one)) is not None),
    )


def _calls(trace: Trace) -> Counter[_Place]:
    """How often each op was called in each step, phase, module and thread."""
    return Counter(_place(trace, i) for i in range(len(trace)))


def _place(trace: Trace, i: int) -> _Place:
    thread = trace.owner(i)
    return trace.step[i], trace.phase[i], trace.site_name(i), thread.process, thread.name


def _largest(
    forced: Trace, i: int, measured: dict[tuple[int, int], Json], tolerance: Tolerance
) -> OwnError | None:
    """The error of an event at the output where it is largest; None where it has none."""
    owned = {
        position: Deviation(**figures)
        for (position, against), figures in measured.items()
        if against == OWN and figures["differing"]
    }
    if not owned:
        return None
    position = max(owned, key=lambda at: (owned[at].unordered > 0, owned[at].rms, -at))
    condition = measured.get((position, CONDITION), {"factor": 1.0})
    here, there = (measured.get((position, against)) for against in (HERE, THERE))
    return OwnError(
        gap=_gap(forced, forced.event(i), position, owned[position], condition, tolerance),
        own=owned[position],
        here=None if here is None else Deviation(**here),
        there=None if there is None else Deviation(**there),
        total=None,
    )


def _gap(
    trace: Trace,
    event: Event,
    position: int,
    found: Deviation,
    condition: Json,
    tolerance: Tolerance,
) -> Gap:
    # An optimizer's update of one element: a handful of operations.
    length = _UPDATE if event.kind == "param" else trace.length(event)
    dtype = event.outputs[position].spec.dtype
    rounding = expected(length, (dtype, condition.get("dtype", dtype))) if length else None
    # What the arguments' last bits decide much of is not known better than that.
    factor = math.inf if condition["factor"] is None else float(condition["factor"])
    rounding = None if rounding is None else rounding * max(factor, 1.0)
    return gap_at(trace, event, position, found, rounding, is_beyond(found, rounding, tolerance))


def _nearer(error: OwnError) -> str:
    if error.here is None or error.there is None:
        return "unknown"
    here, there = error.here.rms, error.there.rms
    if math.isclose(here, there, rel_tol=0.05):
        return "neither"
    return "here" if here < there else "there"


def _beyond_rounding(error: OwnError) -> tuple[bool, float]:
    rounding = error.gap.expected
    return error.own.unordered > 0, error.own.rms / rounding if rounding else error.own.rms


def _total(error: OwnError, recorded: Trace, run: Trace) -> Deviation | None:
    there, here = recorded.find(error.gap.key), run.find(error.gap.key)
    if there is None or here is None:
        return None
    gap = gap_of(recorded, run, there, here, 0.0, Tolerance())
    return None if gap is None else gap.deviation
