"""Compares runs under different conditions, by what can be compared between these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import Alignment, align, column, random_ones, told_apart
from repro_audit.diagnose.drift import gap_at, gaps_between
from repro_audit.diagnose.origin import compare, located
from repro_audit.engine.deviation import deviation
from repro_audit.engine.tags import ITEMSIZES
from repro_audit.model import Deviation, Event, EventCounts, Gap, Origin, Output, Tolerance
from repro_audit.model.codes import BACKWARD, DATA, FORWARD, KIND_BATCH, KIND_PARAM, RANDOM
from repro_audit.trace import Trace
from repro_audit.trace.schema import OUTPUT

# "events": all of them. "values": those that both have, as on two kinds of devices.
# "boundaries": what modules give and what parameters become, of graphs that run other ops.
# "computed": the same, without what was converted before anything was computed.
Way = Literal["events", "values", "boundaries", "computed"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How one run compares with another: the counts, where they first differ, the largest gap.

    `drawn` says that random numbers are what first differs. `evidence` counts the pairs compared
    that say something: not inputs and initial weights that are equal, which any conditions start
    from. With a `reason` the comparison is none, which it tells. `mixed` says that numbers are
    drawn, before the origin, in a dimension that the batch shares: which are whose is not known.
    """

    counts: EventCounts
    origin: Origin | None = None
    largest: Gap | None = None
    drawn: bool = False
    evidence: int = 0
    reason: str | None = None
    mixed: bool = False

    @property
    def differs(self) -> bool | None:
        """None where nothing that was computed could be compared."""
        if self.reason is not None or not self.evidence:
            return None
        return self.origin is not None


def difference(a: Trace, b: Trace, way: Way) -> Difference:
    """How `b` compares with `a`. Costs what `compare` and `drift` cost."""
    alignment = align(a, b)
    left = 0
    if way == "computed":
        starting = _starting(a)[alignment.pairs.mine]
        left = int(np.count_nonzero(starting))
        alignment = replace(alignment, pairs=alignment.pairs.where(~starting))
    found, counts, _ = compare(a, b, values_only=way != "events", alignment=alignment)
    counts = replace(counts, incomparable=counts.incomparable + left)
    evidence = counts.compared
    if way in ("values", "boundaries") or b.plan.get("given"):
        known, unlike = told_apart(a, b, alignment.pairs)
        starting = _starting(a)[alignment.pairs.mine]
        evidence -= int(np.count_nonzero(starting & known & ~unlike))
    if found is None:
        return Difference(counts, evidence=evidence)
    drawn = found.value_i is not None and bool(a.flags[found.value_i] & RANDOM)
    gap = telling_gap(a, b, alignment)
    return Difference(counts, found.origin, gap, drawn, max(evidence, 1))


def telling_gap(a: Trace, b: Trace, alignment: Alignment) -> Gap | None:
    """The largest gap in what is computed forwards and in weights; else that in gradients.

    Gradients may cancel to nothing but rounding, such as that of a bias before a normalisation:
    they are then apart by all of their size, and it means nothing.
    """
    backward = (column(a.phase) == BACKWARD)[alignment.pairs.mine]
    for wanted in (~backward, backward):
        pairs = alignment.pairs.where(wanted)
        gaps = gaps_between(a, b, replace(alignment, pairs=pairs), tolerance=Tolerance())
        if gaps.measured:
            return max(gaps.measured, key=lambda gap: gap.deviation.rms)
    return None


def rows(a: Trace, b: Trace, batches: tuple[int, int]) -> Difference:
    """How the rows that both batches have compare, in the forward of the first step.

    The outputs of both are to be kept whole. Where one dimension of an output is longer by the
    ratio of the batches it holds rows: those of the smaller batch are compared. A dimension that
    holds batch and positions together may have either outside; the order in which the two are
    nearer is taken. Where shapes agree and values do not, rows were mixed: that, and what has no
    such dimension, is not comparable. Evidence is only what has rows and computes with them; rows
    that were too large to be kept may differ, so that the rest does not pass for all of them.
    """
    alignment = align(a, b)
    phases, first = column(a.phase), column(a.step) == 0
    wanted = first & ((phases == FORWARD) | (phases == DATA))
    pairs = alignment.pairs.where(wanted[alignment.pairs.mine])
    known, unlike = told_apart(a, b, pairs)
    same, incomparable, differing = int(np.count_nonzero(known & ~unlike)), 0, 0
    origin: Origin | None = None
    largest: Gap | None = None
    drawn = False
    mixed = False
    # What comes before only makes the inputs.
    begins = _fed(a)
    evidence = lost = 0
    for i, j in pairs.where(unlike):
        mine, other = a.event(i), b.event(j)
        outputs = range(min(len(mine.outputs), len(other.outputs)))
        told = [(at, _rows_apart(a, b, mine, other, at, batches)) for at in outputs]
        found = [(at, one) for at, one in told if isinstance(one, Deviation)]
        random = bool(a.flags[i] & RANDOM)
        lost += any(one == "lost" for _, one in told)
        if random and origin is None:
            mixed |= any(_shared(mine.outputs[at], other.outputs[at], batches) for at in outputs)
        if not found:
            incomparable += 1
            continue
        apart = [(at, one) for at, one in found if one.differing]
        if not apart:
            same += 1
            rowed = any(one is not _ALIKE for _, one in found)
            evidence += rowed and not random and a.phase[i] == FORWARD and i > begins
            continue
        evidence += 1
        differing += 1
        at, most = max(apart, key=lambda item: (item[1].unordered > 0, item[1].rms))
        gap = gap_at(a, mine, at, most, None, False)
        if origin is None:
            drawn = random
            output = mine.outputs[apart[0][0]]
            origin = replace(
                located(a, mine),
                output=apart[0][0],
                spec=output.spec,
                output_name=output.name,
            )
        if largest is None or gap.deviation.rms > largest.deviation.rms:
            largest = gap
    alone = _forward(a, alignment.only_a) + _forward(b, alignment.only_b)
    counts = EventCounts(same + differing, same, differing, alone, incomparable)
    reason = None
    if lost and origin is None:
        reason = f"the rows of {_events(lost)} were too large to be kept whole, and are not known"
    return Difference(counts, origin, largest, drawn, evidence, reason, mixed)


def draws_forward(trace: Trace) -> bool:
    """Whether random numbers are drawn in the first step once a model has its inputs."""
    return len(_drawn(trace)) > 0


def drawn_before(trace: Trace, origin: Origin) -> bool:
    """Whether what first differs may have come of random numbers, in a run that has its operators.

    `origin` may be of a run that has none: it comes first if its module has nothing to do any more
    once a number is drawn in the forward of the first step.
    """
    drawn = _drawn(trace)
    if not len(drawn):
        return False
    key = origin.key
    if (key.step, key.phase) != (0, "forward"):
        return True
    sites = [
        site
        for site, (module, _) in trace.sites.items()
        if not key.module or module == key.module or module.startswith(f"{key.module}.")
    ]
    first = (column(trace.phase) == FORWARD) & (column(trace.step) == 0)
    own = np.flatnonzero(first & np.isin(column(trace.site), sites))
    return not len(own) or bool(own[-1] >= drawn[0])


def _drawn(trace: Trace) -> npt.NDArray[np.int64]:
    """The events of the first forward that draw, once a model has its inputs."""
    drawn = random_ones(trace) & (column(trace.phase) == FORWARD) & (column(trace.step) == 0)
    drawn[: max(_fed(trace), 0)] = False
    return np.flatnonzero(drawn)


def _fed(trace: Trace) -> int:
    """The event by which a model has its first inputs; -1 where there is none."""
    fed = np.flatnonzero(column(trace.kind) == KIND_BATCH)
    return int(fed[0]) if len(fed) else -1


def _starting(trace: Trace) -> npt.NDArray[np.bool_]:
    """Of each event whether it is of what the run starts from: its inputs and initial weights."""
    kind, call = column(trace.kind), column(trace.call_index)
    initial = (kind == KIND_PARAM) & (column(trace.step) == 0) & (call == 0)
    return np.asarray(initial | (kind == KIND_BATCH), np.bool_)


def _forward(trace: Trace, events: list[int]) -> int:
    return sum(
        trace.phase[i] == FORWARD and trace.step[i] == 0 and trace.signature(i) is not None
        for i in events
    )


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"


def _rows_apart(
    a: Trace, b: Trace, mine: Event, other: Event, at: int, batches: tuple[int, int]
) -> Deviation | Literal["lost"] | None:
    """How far the rows of output `at` that both have are apart; None where it has none of its own.

    "lost" where it has rows and was not kept whole in both. What the dispatcher passes by, such as
    a view, has no digest and no say.
    """
    if at >= len(other.outputs):
        return None
    x, y = mine.outputs[at], other.outputs[at]
    if x.bits == y.bits or not math.prod(x.spec.shape):
        return _ALIKE
    if x.spec.dtype not in ITEMSIZES or y.spec.dtype not in ITEMSIZES:
        return None
    dims = _batch_dimension(x, y, batches)
    if dims is None:
        return None
    one, two = a.payload(mine.index, OUTPUT, at), b.payload(other.index, OUTPUT, at)
    if not one or not two:
        return "lost"
    here = _array(one, x)
    nearest: Deviation | None = None
    dtypes = x.spec.dtype, y.spec.dtype
    small = x if batches[0] < batches[1] else y
    numel = math.prod(small.spec.shape)
    cut_here = batches[0] > batches[1]
    whole, kept = (here, _array(two, y)) if cut_here else (_array(two, y), here)
    for cut in _cuts(whole, dims, small.spec.shape[dims], batches):
        one_bytes, two_bytes = (cut, kept) if cut_here else (kept, cut)
        found = deviation(one_bytes.tobytes(), two_bytes.tobytes(), dtypes, numel)
        if found is not None and (nearest is None or _order(found) < _order(nearest)):
            nearest = found
    return nearest


# Of what agrees there is nothing to measure.
_ALIKE = Deviation(0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0)


def _order(found: Deviation) -> tuple[bool, int, float]:
    return found.differing > 0, found.unordered, found.rms


def _batch_dimension(x: Output, y: Output, batches: tuple[int, int]) -> int | None:
    """The one dimension that two shapes differ in, by the ratio of the batches."""
    one, other = x.spec.shape, y.spec.shape
    if len(one) != len(other):
        return None
    dims = [at for at, (m, n) in enumerate(zip(one, other, strict=True)) if m != n]
    if len(dims) != 1 or one[dims[0]] * batches[1] != other[dims[0]] * batches[0]:
        return None
    return dims[0]


def _shared(x: Output, y: Output, batches: tuple[int, int]) -> bool:
    """Whether the batch is one dimension with others there."""
    dim = _batch_dimension(x, y, batches)
    return dim is not None and x.spec.shape[dim] != batches[0]


def _array(data: bytes, output: Output) -> npt.NDArray[np.uint8]:
    """An output's elements, each a row of bytes."""
    size = ITEMSIZES[output.spec.dtype]
    return np.frombuffer(data, np.uint8).reshape(*output.spec.shape, size)


def _cuts(
    whole: npt.NDArray[np.uint8], dim: int, small: int, batches: tuple[int, int]
) -> Iterator[npt.NDArray[np.uint8]]:
    """The rows of the smaller batch in the larger's tensor, for each place of the batch in `dim`.

    It may be outside what is flattened there with it, inside, or between two parts of it.
    """
    fewer, more = min(batches), max(batches)
    if small % fewer:
        yield whole.take(np.arange(small), axis=dim)
        return
    rest = small // fewer
    before, after = whole.shape[:dim], whole.shape[dim + 1 :]
    for inner in (n for n in range(rest, 0, -1) if rest % n == 0):
        parted = whole.reshape(*before, rest // inner, more, inner, *after)
        yield parted.take(np.arange(fewer), axis=dim + 1).reshape(*before, small, *after)
