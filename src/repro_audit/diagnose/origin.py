"""The origin: the first event at which two runs part, and what was seen before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import (
    Alignment,
    Pairs,
    align,
    column,
    random_ones,
    threads_of,
    told_apart,
)
from repro_audit.diagnose.zoomed import telling
from repro_audit.model import CausedBy, Event, EventCounts, Origin
from repro_audit.model.codes import (
    DATA,
    KIND_BATCH,
    KIND_OP,
    KIND_PARAM,
    KIND_RNG,
    OWN_GENERATOR,
    RANDOM,
    SEEDINGS,
    WEIGHTS,
)
from repro_audit.trace import Trace

# Calls that make generators of the program's own.
MADE = {
    "seed:numpy.random.default_rng": "numpy.random.default_rng()",
    "seed:random.Random.seed": "random.Random()",
}
_SEEDED = {"seed:numpy.random.seed": "numpy", "seed:random.seed": "python"}


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two runs' first divergence: the origin, its event in each run, and the counts.

    `i` and `j` are the events of `a` and `b` at which values first differ or one run does what the
    other does not (then one of them is None); for a seeding call as origin they are that call.
    `value_i`, `value_j` are the first events whose values differ, which the origin precedes.
    `seeding` names the first generator of the program's own in Python that was made from another
    state in each run, and where. `states` names generators whose state had differed before and was
    not alike since, with the step it was seen at.
    """

    a: Trace
    b: Trace
    origin: Origin
    i: int | None
    j: int | None
    value_i: int | None
    value_j: int | None
    counts: EventCounts
    states: tuple[tuple[str, int], ...]
    seeding: str | None = None


def compare(
    a: Trace,
    b: Trace,
    *,
    values_only: bool = False,
    draws: bool = True,
    alignment: Alignment | None = None,
) -> tuple[Divergence | None, EventCounts, float]:
    """The first divergence of `b` from `a` (None: they agree), the counts, and how much aligned.

    The last figure is the share of events, of the shorter run, that have a counterpart. Generator
    states alone never diverge: a state that nobody draws from changes no result. With `values_only`
    an event without a counterpart is no divergence: devices of two kinds run other ops for the same
    thing. Without `draws` random operators are not compared: two machines draw other numbers; nor
    are initial weights that were overwritten before they were used.
    `alignment` stands in for that of all events.
    """
    alignment = align(a, b) if alignment is None else alignment
    values = [int(np.count_nonzero(column(trace.kind) != KIND_RNG)) for trace in (a, b)]
    share = len(alignment.pairs) / min(values) if min(values) else float(max(values) == 0)
    known, unlike = told_apart(a, b, alignment.pairs)
    drawn = unlike & (random_ones(a)[alignment.pairs.mine] & (not draws))
    drawn |= _overwritten(a, alignment.pairs, unlike)
    differing = alignment.pairs.where(unlike & ~drawn)
    same, incomparable = int(np.count_nonzero(known & ~unlike)), int(np.count_nonzero(drawn))
    alone = len(alignment.only_a) + len(alignment.only_b)
    unaligned = 0
    if values_only:
        alone, unaligned = 0, alone
        alignment = Alignment(alignment.pairs)
    divergent = len(differing) + alone
    counts = EventCounts(same + divergent, same, divergent, unaligned, incomparable)
    if not divergent:
        return None, counts, share
    first = _first(a, b, alignment, differing)
    return _divergence(a, b, first, alignment, counts), counts, share


def _overwritten(a: Trace, pairs: Pairs, unlike: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of each pair whether it made initial weights of which none was left once they were used.

    A model that is built and then loaded draws weights that nobody reads: of the parameters that
    are seen as models are first called, those of that shape are the same. What reads such a weight
    before that differs too, and is no such pair.
    """
    kinds, phases = column(a.kind)[pairs.mine], column(a.phase)[pairs.mine]
    first = (column(a.step)[pairs.mine] == 0) & (column(a.call_index)[pairs.mine] == 0)
    used = (kinds == KIND_PARAM) & (phases == WEIGHTS) & first
    made: npt.NDArray[np.bool_] = unlike & (kinds == KIND_OP) & (phases == WEIGHTS)
    if not made.any() or not used.any():
        return np.zeros(len(pairs), np.bool_)
    called = int(pairs.mine[used].min())
    made &= pairs.mine < called
    alike, other = (
        {output.spec for i in pairs.mine[which].tolist() for output in a.event(i).outputs}
        for which in (used & ~unlike, used & unlike)
    )
    shapes = alike - other
    for at in np.flatnonzero(made).tolist():
        made[at] = all(x.spec in shapes for x in a.event(int(pairs.mine[at])).outputs)
    return made


def between_devices(a: Trace, b: Trace) -> bool:
    """True where the runs used devices of different kinds: then values alone compare."""
    kinds = [{device.partition(":")[0] for device in run.devices()} - {"meta"} for run in (a, b)]
    return kinds[0] != kinds[1]


def _first(
    a: Trace, b: Trace, alignment: Alignment, differing: Pairs
) -> tuple[int | None, int | None]:
    """The earliest difference in the execution order of `a`; `b` alone goes before what follows."""
    candidates: list[tuple[float, int | None, int | None]] = []
    if differing:
        both = differing[int(np.argmin(differing.mine))]
        candidates.append((both[0], *both))
    if alignment.only_a:
        mine = min(alignment.only_a)
        candidates.append((mine, mine, None))
    if alignment.only_b:
        other = min(alignment.only_b)
        candidates.append((_place_of(b, other, alignment), None, other))
    _, i, j = min(candidates, key=lambda candidate: candidate[0])
    return i, j


def _place_of(b: Trace, other: int, alignment: Alignment) -> float:
    """Where in the order of the first run an event would stand that only `b` has."""
    after = [i for i, j in alignment.pairs if j > other and b.thread[j] == b.thread[other]]
    if after:
        return min(after) - 0.5
    # The end of its thread: after what `b` had done by then, all threads together.
    return max((i for i, j in alignment.pairs if j < other), default=-1) + 0.5


def _divergence(
    a: Trace,
    b: Trace,
    first: tuple[int | None, int | None],
    alignment: Alignment,
    counts: EventCounts,
) -> Divergence:
    i, j = first
    trace, at = (a, i) if i is not None else (b, j)
    assert at is not None
    event = trace.event(at)
    if i is not None and j is not None:
        origin = _value_origin(a, event, b.event(j))
    else:
        origin = replace(
            located(trace, event),
            kind="structural",
            other_op=_instead(a, b, alignment, i, j),
        )
    origin = replace(origin, caused_by=_caused_by(trace, event, origin))
    seedings, states = _generators_before(a, b, i, j)
    # Programs seed all generators beside one another: the one that was drawn from is meant.
    fed = (each for each in seedings if _fed_by(trace, at, origin, _seed_op(a, b, each)))
    seeding = next(fed, None)
    if seeding is not None:
        x, y = seeding
        seeded, call = (a, x) if x is not None else (b, y or 0)
        return Divergence(a, b, located(seeded, seeded.event(call)), x, y, i, j, counts, states)
    made = (f"{MADE[op]}{line}" for op, line in _seeded_at(a, b, seedings) if op in MADE)
    return Divergence(a, b, origin, i, j, i, j, counts, states, next(made, None))


def _seeded_at(
    a: Trace, b: Trace, seedings: Sequence[tuple[int | None, int | None]]
) -> Iterator[tuple[str, str]]:
    for x, y in seedings:
        event = a.event(x) if x is not None else b.event(y or 0)
        yield event.key.op, f" at {event.line}" if event.line else ""


def _seed_op(a: Trace, b: Trace, seeding: tuple[int | None, int | None]) -> str:
    x, y = seeding
    return a.site_name(x)[1] if x is not None else b.site_name(y or 0)[1]


def _fed_by(trace: Trace, at: int, origin: Origin, seed: str) -> bool:
    """Could the draws behind this event come from the generator that `seed` seeds?

    torch's own draws come from torch's generator, or from one of the program's own; what comes in
    from outside, is cut there by numbers of Python's, or decides a path, may come from any.
    """
    outside = trace.kind[at] == KIND_BATCH or trace.phase[at] == DATA
    if origin.kind == "structural" or (outside and not trace.flags[at] & RANDOM):
        return True
    drawn = trace.flags[at] & (RANDOM | OWN_GENERATOR) == RANDOM
    return drawn and seed.startswith("seed:torch.")


def located(trace: Trace, event: Event) -> Origin:
    """An origin at an event of a run, of which its first output is told."""
    output = event.outputs[0] if event.outputs else None
    return Origin(
        key=event.key,
        event=trace.place(event.index),
        rank=trace.rank(event.index),
        output=0 if output is not None else None,
        spec=output.spec if output is not None else None,
        call_site=event.call_site,
        called_from=event.called_from,
        kind="value",
        recompute=event.recompute,
        backward_code=event.backward_code,
        output_name=output.name if output is not None else "",
    )


def _value_origin(a: Trace, mine: Event, other: Event) -> Origin:
    origin = located(a, mine)
    for position, output in enumerate(mine.outputs):
        if position >= len(other.outputs) or output.bits != other.outputs[position].bits:
            return replace(origin, output=position, spec=output.spec, output_name=output.name)
    return origin


def _caused_by(trace: Trace, event: Event, origin: Origin) -> CausedBy | None:
    at = event.cause
    if trace.kind[event.index] == KIND_PARAM and origin.kind == "value":
        at = writer_of(trace, event, origin.output)
    # What is computed again has a line of its own: whose node asks for it is another matter.
    if at is None or event.recompute:
        return None
    cause = trace.event(at)
    return CausedBy(cause.key.op, cause.key.module, cause.call_site, cause.called_from)


def writer_of(trace: Trace, event: Event, output: int | None) -> int | None:
    """The op that last gave what a parameter then is; None where that is not known.

    Before its model is called a parameter has no name: an order in which parameters are written
    shows only in what they are.
    """
    if output is None or output >= len(event.outputs) or not telling(event.outputs[output]):
        return None
    maker = trace.maker(event.index, event.outputs[output].digest or b"")
    return maker if maker is not None and trace.kind[maker] == KIND_OP else None


def _instead(a: Trace, b: Trace, alignment: Alignment, i: int | None, j: int | None) -> str | None:
    """What the other run did at the place where one run did something of its own."""
    mine, at, other, flipped = (a, i, b, False) if i is not None else (b, j, a, True)
    assert at is not None
    thread = mine.owner(at)
    number = mine.thread[at]
    last = -1
    for x, y in alignment.pairs:
        here, there = (y, x) if flipped else (x, y)
        if here < at and mine.thread[here] == number:
            last = max(last, there)
    numbers = threads_of(other).get((thread.process, thread.name), ())
    for place in range(last + 1, len(other)):
        if other.thread[place] in numbers and other.kind[place] != KIND_RNG:
            return other.site_name(place)[1]
    return None


def _generators_before(
    a: Trace, b: Trace, i: int | None, j: int | None
) -> tuple[list[tuple[int | None, int | None]], tuple[tuple[str, int], ...]]:
    """Differing seeding calls, the earliest first, and differing states, before the event."""
    alignment = align(a, b, rng=True)
    process = a.owner(i).process if i is not None else b.owner(j or 0).process

    def before(x: int | None, y: int | None) -> bool:
        # Every process has generators of its own.
        if (a.owner(x) if x is not None else b.owner(y or 0)).process != process:
            return False
        if x is not None and i is not None:
            return x < i
        if y is not None and j is not None:
            return y < j
        # The runs do not both have the event: the step tells.
        step = a.step[x] if x is not None else b.step[y or 0]
        return bool(step <= (a.step[i] if i is not None else b.step[j or 0]))

    differing = [
        (x, y) for x, y in alignment.pairs if a.signature(x) != b.signature(y) and before(x, y)
    ]
    parted: list[tuple[int | None, int | None]] = [
        *differing,
        *((x, None) for x in alignment.only_a if before(x, None)),
        *((None, y) for y in alignment.only_b if before(None, y)),
    ]
    # Whoever seeds a generator that nobody draws from changes no result.
    seeds = [
        (x, y)
        for x, y in parted
        if _seed_op(a, b, (x, y)).startswith("seed:")
        and not ((x is None or a.undrawn(x)) and (y is None or b.undrawn(y)))
    ]
    return sorted(seeds, key=_order), _differing_states(
        a, b, [pair for pair in alignment.pairs if before(*pair)]
    )


def _differing_states(
    a: Trace, b: Trace, pairs: Sequence[tuple[int, int]]
) -> tuple[tuple[str, int], ...]:
    """Generators whose states differ, and since which step; not those that were alike since.

    A seeding that both runs make alike gives them one state.
    """
    states: dict[str, int] = {}
    for x, y in sorted(pairs):
        op = a.site_name(x)[1]
        alike = a.signature(x) == b.signature(y)
        name = op.removeprefix("rng:")
        if name != op and alike:
            states.pop(name, None)
        elif name != op:
            states.setdefault(name, a.step[x])
        elif alike and (seeded := seeded_by(op)) is not None:
            states = {n: step for n, step in states.items() if not n.startswith(seeded)}
    return tuple(sorted(states.items()))


def seeded_by(op: str) -> str | None:
    """Whose state a seeding call sets, of the global generators: torch's are those of its devices
    too, one device's are `torch.cuda`, whatever devices the reader's machine has.
    """
    module, _, call = op.removeprefix("seed:").rpartition(".")
    if op.startswith("seed:torch") and call in SEEDINGS:
        return module
    return _SEEDED.get(op)


def _order(pair: tuple[int | None, int | None]) -> int:
    x, y = pair
    return x if x is not None else y if y is not None else 0
