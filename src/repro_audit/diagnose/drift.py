"""How far two runs drift apart: from event to event, over the depth of a model, over steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import (
    Alignment,
    Pairs,
    column,
    random_ones,
    told_apart,
)
from repro_audit.diagnose.tolerance import ROUNDOFF, expected
from repro_audit.engine.deviation import deviation, values
from repro_audit.model import (
    Amplification,
    Deviation,
    Drift,
    Event,
    Gap,
    StepDrift,
    Tolerance,
)
from repro_audit.model.codes import BACKWARD, FORWARD, KIND_OP, KIND_STATE
from repro_audit.trace import Trace

# Differing events that are measured, at most: the first half of these, the others evenly spread.
LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far apart two runs are where they differ: the events, and those that were measured."""

    differing: Pairs
    measured: tuple[Gap, ...]


def gaps_between(
    a: Trace, b: Trace, alignment: Alignment, *, tolerance: Tolerance, draws: bool = True
) -> Gaps:
    """Measure how far `b` is from `a` wherever they differ, in the order of `a`.

    By the elements that were sampled of what both recorded. What optimizers keep is left out: it
    was gradients, which may cancel to nothing but rounding. Random operators are left out unless
    `draws` compare. Some 100 µs an event that differs, of at most `LIMIT` where no tolerance is
    asked for.
    """
    _, unlike = told_apart(a, b, alignment.pairs)
    unlike &= (column(a.kind) != KIND_STATE)[alignment.pairs.mine]
    if not draws:
        unlike &= ~random_ones(a)[alignment.pairs.mine]
    differing = alignment.pairs.where(unlike)
    order = np.argsort(differing.mine, kind="stable")
    differing = Pairs(differing.mine[order], differing.other[order])
    added = _added_up(a)
    measured = (
        gap_of(a, b, i, j, float(added[i]), tolerance)
        # What is to be tolerated has to be seen, all of it.
        for i, j in (differing if tolerance.asked else _chosen(differing))
    )
    return Gaps(differing, tuple(gap for gap in measured if gap is not None))


def drift(
    a: Trace,
    b: Trace,
    alignment: Alignment,
    found: Gaps,
    runs: tuple[str, str],
    tolerance: Tolerance,
) -> Drift | None:
    """What the gaps between two runs say together; None where they do not differ."""
    differing, gaps = found.differing, found.measured
    if not differing:
        return None
    beyond = [gap for gap in gaps if gap.beyond]
    layers = _layers(gaps)
    weighed = sum(gap.deviation.differing for gap in gaps)
    return Drift(
        runs=runs,
        differing=len(differing),
        measured=len(gaps),
        sampled=max((g.deviation.compared for g in gaps if not g.deviation.whole), default=0),
        beyond=len(beyond),
        tolerance=tolerance,
        first=next((gap for gap in gaps[:1] if gap.event == a.place(differing[0][0])), None),
        first_beyond=beyond[0] if beyond else None,
        largest=max(gaps, key=lambda gap: gap.deviation.rms, default=None),
        amplification=_amplification(layers),
        bias=sum(g.deviation.bias * g.deviation.differing for g in gaps) / weighed
        if weighed
        else 0.0,
        layers=layers,
        steps=tuple(_steps(a, b, alignment, gaps)),
    )


def gap_of(a: Trace, b: Trace, i: int, j: int, added: float, tolerance: Tolerance) -> Gap | None:
    """How far event `i` of `a` is from `j` of `b`, where `added` numbers were added up by then."""
    mine, other = a.event(i), b.event(j)
    found: tuple[int, Deviation] | None = None
    for position, deviation_ in _deviations(a, b, mine, other):
        if found is None or _size(deviation_) > _size(found[1]):
            found = position, deviation_
    return None if found is None else _gap(a, b, mine, other, *found, added, tolerance)


def _gap(
    a: Trace,
    b: Trace,
    mine: Event,
    other: Event,
    position: int,
    found: Deviation,
    added: float,
    tolerance: Tolerance,
) -> Gap:
    dtypes = mine.outputs[position].spec.dtype, other.outputs[position].spec.dtype
    computed = mine.kind in {"op", "param", "module"}
    rounding = expected(added, dtypes) if computed and added else None
    # At the level of modules nothing tells how much was added up.
    unknown = computed and not added and expected(1, dtypes) is not None
    beyond = is_beyond(found, math.inf if unknown else rounding, tolerance)
    return gap_at(a, mine, position, found, rounding, beyond)


def gap_at(
    trace: Trace,
    event: Event,
    position: int,
    found: Deviation,
    rounding: float | None,
    beyond: bool,
) -> Gap:
    """The gap `found` at an output of an event, of which rounding explains so much."""
    output = event.outputs[position]
    return Gap(
        key=event.key,
        event=trace.place(event.index),
        output=position,
        output_name=output.name,
        spec=output.spec,
        call_site=event.call_site,
        deviation=found,
        length=trace.length(event),
        expected=rounding,
        beyond=beyond,
    )


def is_beyond(found: Deviation, rounding: float | None, tolerance: Tolerance) -> bool:
    """True if a deviation is past the tolerance; by default past what rounding explains."""
    if found.unordered:
        return True
    if tolerance.ulp is not None:
        # Where no element of a sample differs, one outside it does.
        return found.max_ulp > tolerance.ulp or (tolerance.ulp == 0 and not found.differing)
    return found.rms > rounding if rounding is not None else found.differing > 0


def _size(found: Deviation) -> tuple[bool, float]:
    return found.unordered > 0, found.rms


def _deviations(a: Trace, b: Trace, mine: Event, other: Event) -> Iterator[tuple[int, Deviation]]:
    ours, theirs = a.samples(mine.index), b.samples(other.index)
    for position, (x, y) in enumerate(zip(mine.outputs, other.outputs, strict=False)):
        if x.bits == y.bits or x.spec.shape != y.spec.shape:
            continue
        if position not in ours or position not in theirs:
            continue
        dtypes = x.spec.dtype, y.spec.dtype
        found = deviation(ours[position], theirs[position], dtypes, math.prod(x.spec.shape))
        if found is not None:
            yield position, found


def _added_up(trace: Trace) -> npt.NDArray[np.float64]:
    """How many numbers were added up from the begin of the run to each event, that one included.

    Backwards what is forwards is added up once more.
    """
    lengths = np.zeros(max(trace.sites, default=0) + 1)
    for site, length in trace.reductions().items():
        lengths[site] = length
    ops = column(trace.kind) == KIND_OP
    return np.cumsum(np.where(ops, lengths[column(trace.site)], 0.0))


def _chosen(differing: Pairs) -> Iterable[tuple[int, int]]:
    if len(differing) <= LIMIT:
        return differing
    first, rest = differing[: LIMIT // 2], differing[LIMIT // 2 :]
    stride = -(-len(rest) // (LIMIT // 2))
    return chain(first, rest[::stride])


def _layers(gaps: Sequence[Gap]) -> tuple[Gap, ...]:
    """The last gap of each module in the first forward that differs, in order."""
    forward = [g for g in gaps if g.key.phase == "forward" and g.spec.dtype in ROUNDOFF]
    if not forward:
        return ()
    step = forward[0].key.step
    last = {gap.key.module: gap for gap in forward if gap.key.step == step}
    return tuple(sorted(last.values(), key=lambda gap: gap.event))


def _amplification(layers: Sequence[Gap]) -> Amplification | None:
    found: Amplification | None = None
    for before, after in pairwise(layers):
        if before.deviation.rms <= 0:
            continue
        factor = after.deviation.rms / before.deviation.rms
        if found is None or factor > found.factor:
            found = Amplification(before, after, factor)
    return found


def _steps(a: Trace, b: Trace, alignment: Alignment, gaps: Sequence[Gap]) -> Iterator[StepDrift]:
    losses = _losses(a, b, alignment)
    forward: dict[int, float] = {}
    weights: dict[int, float] = {}
    for gap in gaps:
        step, size = gap.key.step, gap.deviation.rms
        if gap.key.phase == "forward" and gap.spec.dtype in ROUNDOFF:
            forward[step] = size
        elif gap.key.phase == "weights" and gap.key.op.startswith("param:"):
            weights[step] = max(weights.get(step, 0.0), size)
    # What a run ends with is recorded once more after its last step.
    made = min(a.steps, b.steps) or 1
    for step in sorted({*losses, *forward, *weights}):
        if step < made:
            yield StepDrift(step, losses.get(step), forward.get(step), weights.get(step))


def _losses(a: Trace, b: Trace, alignment: Alignment) -> dict[int, tuple[float, float]]:
    """Of each step the number that its first backward began at: the last one of its forward."""
    phase, step = column(a.phase), column(a.step)
    backward = np.flatnonzero(phase == BACKWARD)
    steps, first = np.unique(step[backward], return_index=True)
    begun = np.zeros(int(step.max(initial=0)) + 1, np.int64)
    begun[steps] = backward[first]
    # The gradient of a loss is made before the first op of the backward.
    made = [site for site, name in a.sites.items() if name[1].startswith("aten.ones_like")]
    forward = (phase == FORWARD) & a.signatures.present & ~np.isin(column(a.site), made)
    before = np.flatnonzero(forward & (np.arange(len(step)) < begun[step]))
    # The last of each step: of those from the end the first.
    _, last = np.unique(step[before][::-1], return_index=True)
    ends = before[::-1][last]
    found: dict[int, tuple[float, float]] = {}
    for i, j in alignment.pairs.where(np.isin(alignment.pairs.mine, ends)):
        one, other = _number(a, i), _number(b, j)
        if one is not None and other is not None:
            found[a.step[i]] = one, other
    return found


def _number(trace: Trace, i: int) -> float | None:
    spec = next((output.spec for output in trace.event(i).outputs), None)
    sample = trace.samples(i).get(0)
    if (
        spec is None
        or sample is None
        or spec.dtype not in ROUNDOFF
        or any(s != 1 for s in spec.shape)
    ):
        return None
    return float(values(sample, spec.dtype)[0])
