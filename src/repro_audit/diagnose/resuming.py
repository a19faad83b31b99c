"""Does a resumed run go on as the straight one did? Where it goes on, and which event is which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from repro_audit.diagnose.align import Alignment, Pairs, align, column, told_apart
from repro_audit.diagnose.trainers import Mask, Named, Pass, Trainer, trainers
from repro_audit.model.codes import BACKWARD, KIND_BATCH, KIND_PARAM, KIND_STATE
from repro_audit.trace import Trace

_COPY = "aten.copy_.default"
_SEED = "aten.random_.default"
# How many events lie between a loader's draw of a seed and its sampler's, at most.
_UPON = 4
# Of fewer events than this share the straight run's step has a counterpart: shapes may tell apart.
_MATCHED = 0.5

_Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class GoesOn:
    """The step of the straight run that a resumed run goes on at.

    It begins `anew` where it begins with the straight run's very beginning.
    """

    step: int
    anew: bool


def goes_on_at(straight: Trace, resumed: Trace, ended: int) -> GoesOn:
    """Where a resumed run goes on, both recorded with their `beginnings`.

    Where the straight run had the weights that the resumed one begins with. A weight that is what
    it was at the very beginning tells nothing. Of places with as many, what comes in from
    outside decides, then generators and what optimizers keep and leave, which is all that tells
    where weights are not seen, then what is nearest to `ended`, where the first part was.
    """
    mine, other = trainers(straight), trainers(resumed)
    both = [process for process in mine if process in other]
    if not both:
        return GoesOn(ended, anew=False)
    places: dict[_Pair, tuple[int, int]] = {}
    for process in both:
        at_first, begins = mine[process].passes[0], other[process].passes[0]
        for place in mine[process].passes:
            weights, batches = places.get((place.step, place.number), (0, 0))
            places[place.step, place.number] = (
                weights + _alike(place.weights, begins.weights, at_first.weights),
                batches + _alike(place.batches, begins.batches),
            )
    first = all(_as_at_first(mine[process].passes[0], other[process].passes[0]) for process in both)
    best = max(places.values())
    steps = sorted({step for step, number in places if places[step, number] == best})
    if len(steps) > 1:
        states = [(mine[process], other[process].states(0)) for process in both]
        kept, begins_with = _kept(straight), _kept(resumed).get(0, {})
        alike = {
            step: (
                sum(kept[step].get(name) == value for name, value in begins_with.items())
                if step in kept
                else 0,
                sum(
                    trainer.states(step).get(name) == state
                    for trainer, begins in states
                    for name, state in begins.items()
                ),
            )
            for step in steps
        }
        steps = [step for step in steps if alike[step] == max(alike.values())]
    step = _nearest(steps, ended)
    return GoesOn(step, anew=first and step == 0)


def _alike(one: Named, other: Named, but: Named | None = None) -> int:
    """How many values are the same, and not those of `but`."""
    return sum(
        one.get(name) == value and (but is None or but.get(name) != value)
        for name, value in other.items()
    )


def _as_at_first(first: Pass, begins: Pass) -> bool:
    return bool(begins.weights) and all(
        first.weights.get(name) == value for name, value in begins.weights.items()
    )


def _kept(trace: Trace) -> dict[int, dict[tuple[str, str, str], bytes | None]]:
    """What optimizers keep, are told and leave in each step, as it is first seen in it."""
    kinds = column(trace.kind)
    found: dict[int, dict[tuple[str, str, str], bytes | None]] = {}
    for i in np.flatnonzero((kinds == KIND_STATE) | (kinds == KIND_PARAM)).tolist():
        name = trace.owner(i).process, *trace.site_name(i)
        found.setdefault(trace.step[i], {}).setdefault(name, trace.signature(i))
    return found


def _nearest(steps: Sequence[int], ended: int) -> int:
    return max(steps, key=lambda step: (step <= ended, step if step <= ended else -step))


def going_on(straight: Trace, resumed: Trace, step: int, until: int | None) -> tuple[Trace, Trace]:
    """Of both runs what is to be the same: from the loop's first event in `step` on.

    What the resumed run did before is its own, and what the straight run did after the step before:
    built and loaded the one, evaluated and saved the other. The loop begins where both do the same
    at the same lines, up to the first backward that both have. Steps from `until` on are left out.
    Steps of the resumed run's part are numbered as the straight run's.
    """
    mine, other = trainers(straight), trainers(resumed)
    both = {p: _loops_begin(mine[p], other[p], step) for p in mine if p in other}
    parts = []
    for which, (trace, first, later) in enumerate(((straight, step, 0), (resumed, 0, step))):
        steps = column(trace.step)
        wanted = steps >= first
        begins = np.array([both.get(thread.process, (0, 0))[which] for thread in trace.threads])
        if len(trace):
            at = np.arange(len(trace)) >= begins[column(trace.thread)]
            wanted &= (steps > first) | at
        if until is not None:
            wanted &= steps + later < until
        parts.append(trace.part(wanted, later=later))
    return parts[0], parts[1]


def _loops_begin(one: Trainer, two: Trainer, step: int) -> _Pair:
    """Where both runs' loops begin their first common step."""
    mine, other = one.events(step), two.events(0)
    pairs = _matched(one.trace, mine, two.trace, other)
    phase = one.trace.phase
    backward = next((at for at, (x, _) in enumerate(pairs) if phase[mine[x]] == BACKWARD), None)
    if backward is None:
        return one.backward.get(step, len(one.trace)), two.backward.get(0, len(two.trace))
    at = backward
    present = one.trace.signatures.present
    # In between the straight run computes nothing that the resumed one does not.
    while at and not present[mine[pairs[at - 1][0] + 1 : pairs[at][0]]].any():
        at -= 1
    return mine[pairs[at][0]], other[pairs[at][1]]


def _matched(a: Trace, mine: Sequence[int], b: Trace, other: Sequence[int]) -> list[_Pair]:
    """Which event of a step is which, by what it is, at which line, and what it makes."""
    found: list[_Pair] = []
    for shapes in (True, False):
        one, two = a.marks(mine, shapes=shapes), b.marks(other, shapes=shapes)
        found = list(_common(one, two))
        if len(found) >= _MATCHED * len(mine):
            break
    return found


def _common(one: Sequence[object], two: Sequence[object]) -> Iterator[_Pair]:
    tail = 0
    while tail < min(len(one), len(two)) and one[-1 - tail] == two[-1 - tail]:
        tail += 1
    x, y = len(one) - tail, len(two) - tail
    # From the end: of batches that are skipped and the one that is taken, the last is meant.
    matcher = SequenceMatcher(None, one[:x][::-1], two[:y][::-1], autojunk=False)
    for i, j, size in reversed(matcher.get_matching_blocks()):
        yield from zip(range(x - i - size, x - i), range(y - j - size, y - j), strict=True)
    yield from zip(range(x, len(one)), range(y, len(two)), strict=True)


@dataclass(frozen=True, slots=True)
class Aligned:
    """Which event is which; `more`, which are in neither list, the resumed run alone has."""

    alignment: Alignment
    more: tuple[int, ...]


def aligned(straight: Trace, resumed: Trace, step: int) -> Aligned:
    """Align two parts that `going_on` made.

    The resumed run may do more than the straight one: what is made when it is first used, and kept,
    is made anew. DistributedDataParallel copies gradients into its buckets in another order the
    first time, and makes others the second time: outside modules, what is copied, or has no values,
    may then be something else, and copies come in another order. What the resumed run does in steps
    that the straight one did not make is no such thing.
    """
    found = _with_first_step(straight, resumed, align(straight, resumed), step)
    mine, other = _bookkeeping(straight, step), _bookkeeping(resumed, step)
    steps = column(straight.step)[found.pairs.mine]
    known, unlike = told_apart(straight, resumed, found.pairs)
    moved = known & unlike & mine[found.pairs.mine] & other[found.pairs.other]
    for at in np.unique(steps[moved]):
        here = moved & (steps == at)
        one, two = found.pairs.mine[here].tolist(), found.pairs.other[here].tolist()
        if Counter(map(straight.signature, one)) != Counter(map(resumed.signature, two)):
            moved &= ~here
    # What has no values differs in none: a view of a table that is longer, an optimizer's operator
    # that has another name before a model is first called.
    present = straight.signatures.present
    over = step + resumed.steps > straight.steps
    moved |= _idle_seeds(straight, resumed, found.pairs, known & unlike)
    last = straight.steps if over else np.iinfo(np.int64).max
    return Aligned(
        Alignment(
            found.pairs.where(~moved),
            [i for i in found.only_a if not mine[i] and present[i]],
            [j for j in found.only_b if resumed.step[j] >= last and not other[j]],
        ),
        tuple(j for j in found.only_b if resumed.step[j] < last and not other[j]),
    )


def _idle_seeds(a: Trace, b: Trace, pairs: Pairs, unlike: Mask) -> Mask:
    """Of each pair whether it is a loader's draw of a seed of which nothing came.

    The same data; or a loader without workers draws what would have seeded them, then its sampler
    what does order the data.
    """
    differ = bool((unlike & (column(a.kind)[pairs.mine] == KIND_BATCH)).any())
    if differ and any(file.closing.get("unseen", {}).get("loader-workers") for file in a.files):
        return np.zeros(len(pairs), np.bool_)
    sites = np.zeros(max(a.sites, default=0) + 1, np.bool_)
    sites[[site for site, (module, op) in a.sites.items() if not module and op == _SEED]] = True
    found = unlike & sites[column(a.site)[pairs.mine]]
    for at in np.flatnonzero(found):
        output = a.event(int(pairs.mine[at])).outputs[0]
        found[at] = (output.spec.dtype, output.spec.shape) == ("int64", ())
    drawn = pairs.mine[sites[column(a.site)[pairs.mine]]]
    if differ:
        # Of those of one loader, one upon the other, the first.
        close = np.diff(drawn, prepend=-_UPON - 1) <= _UPON
        found &= np.isin(pairs.mine, drawn[~close])
    return found


def _with_first_step(a: Trace, b: Trace, found: Alignment, step: int) -> Alignment:
    """The alignment, where that of the first step is by lines and shapes too."""
    ours, theirs = trainers(a), trainers(b)
    mine, other = np.zeros(len(a), np.bool_), np.zeros(len(b), np.bool_)
    pairs: list[_Pair] = []
    for process in ours:
        if process not in theirs:
            continue
        one, two = ours[process].events(step), theirs[process].events(step)
        mine[one], other[two] = True, True
        pairs += [(one[x], two[y]) for x, y in _matched(a, one, b, two)]
    kept = found.pairs.where(~(mine[found.pairs.mine] | other[found.pairs.other]))
    paired = np.array(pairs, np.int64).reshape(-1, 2)
    alone = np.setdiff1d(np.flatnonzero(mine), paired[:, 0])
    more = np.setdiff1d(np.flatnonzero(other), paired[:, 1])
    return Alignment(
        Pairs(
            np.concatenate([paired[:, 0], kept.mine]), np.concatenate([paired[:, 1], kept.other])
        ),
        [i for i in found.only_a if not mine[i] and a.step[i] > step] + alone.tolist(),
        [j for j in found.only_b if not other[j] and b.step[j] > step] + more.tolist(),
    )


def _bookkeeping(trace: Trace, step: int) -> Mask:
    """Of each event whether it is a copy, or has no values, outside modules, in the first two steps
    from `step` on.
    """
    outside, copies = (np.zeros(max(trace.sites, default=0) + 1, np.bool_) for _ in range(2))
    for site, (module, op) in trace.sites.items():
        outside[site], copies[site] = not module, op == _COPY
    number = column(trace.site)
    bare = copies[number] | ~trace.signatures.present
    return bare & outside[number] & (column(trace.step) <= step + 1)
