"""Does a resumed run go on as the straight one did? Where it goes on, and with which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import Alignment, Pairs, align, column, threads_of, told_apart
from repro_audit.model import Output, Restored
from repro_audit.model.codes import (
    BACKWARD,
    KIND_BATCH,
    KIND_PARAM,
    KIND_RNG,
    KIND_STATE,
    OPTIMIZER,
    WEIGHTS,
)
from repro_audit.trace import Trace

_NAMED = 100
_COPY = "aten.copy_.default"

_Mask = npt.NDArray[np.bool_]
# What a step begins with: signatures by process, module and op.
_Begin = dict[tuple[str, str, str], bytes]


class _Trainer:
    """A process whose main thread goes backward: its events, and where each step begins to."""

    def __init__(self, trace: Trace, process: str) -> None:
        self.trace = trace
        self.process = process
        self.mask: _Mask = np.isin(column(trace.thread), threads_of(trace)[process, ""])
        events = np.flatnonzero(self.mask & (column(trace.phase) == BACKWARD))
        steps, first = np.unique(column(trace.step)[events], return_index=True)
        self.backward = dict(zip(steps.tolist(), events[first].tolist(), strict=True))

    def before_backward(self, step: int, *, states: bool = False) -> list[int]:
        """The events of a step up to there, generators' states among them or not."""
        first = self.backward.get(step, len(self.trace))
        wanted = self.mask & (column(self.trace.step) == step)
        if not states:
            wanted &= column(self.trace.kind) != KIND_RNG
        wanted[first:] = False
        return np.flatnonzero(wanted).tolist()


def _trainers(trace: Trace) -> list[_Trainer]:
    """In the order of their names: the program's own, and those that it started."""
    processes = sorted(process for process, thread in threads_of(trace) if not thread)
    found = [_Trainer(trace, process) for process in processes]
    return [trainer for trainer in found if trainer.backward]


def goes_on_at(straight: Trace, resumed: Trace, ended: int) -> int:
    """The steps that the straight run had made with the weights that the resumed one begins with.

    Both are recorded with their `beginnings`. Weights that never change tell nothing; where none
    that the resumed run begins with is the straight run's at any step, what comes in from outside
    tells, and else it is taken to be at `ended`, where the first part was.
    """
    for kind in (KIND_PARAM, KIND_BATCH):
        begins = _begins(straight, kind)
        mine = {
            name: value
            for name, value in _begins(resumed, kind).get(0, {}).items()
            if len({values.get(name) for values in begins.values()}) > 1
        }
        matches = Counter(
            {
                step: sum(values.get(name) == value for name, value in mine.items())
                for step, values in begins.items()
            }
        )
        most = max(matches.values(), default=0)
        if most:
            # Of steps that tell the same, the one that is nearest to where it was ended.
            return max(
                (step for step in matches if matches[step] == most),
                key=lambda step: (step <= ended, step if step <= ended else -step),
            )
    return ended


def _begins(trace: Trace, kind: int) -> dict[int, _Begin]:
    """What each step begins with: values of one kind as they last were before its backward."""
    found: dict[int, _Begin] = {}
    for trainer in _trainers(trace):
        for i in np.flatnonzero(trainer.mask & (column(trace.kind) == kind)).tolist():
            step = trace.step[i]
            signature = trace.signature(i)
            if signature is not None and i < trainer.backward.get(step, -1):
                found.setdefault(step, {})[trainer.process, *trace.site_name(i)] = signature
    return found


def going_on(straight: Trace, resumed: Trace, step: int, until: int | None) -> tuple[Trace, Trace]:
    """Of both runs what is to be the same: from the loop's first event in `step` on.

    What the resumed run did before is its own, and what the straight run did after the step before:
    built and loaded the one, evaluated and saved the other. The loop begins where the model is
    called whose loss goes backward first, and before that as far as both do the same at the same
    lines. Steps from `until` on are left out. Steps of the resumed run's part are numbered as the
    straight run's.
    """
    mine, other = ({t.process: t for t in _trainers(trace)} for trace in (straight, resumed))
    both = {p: _loops_begin(mine[p], other[p], step) for p in mine if p in other}
    parts = []
    for which, (trace, first, later) in enumerate(((straight, step, 0), (resumed, 0, step))):
        steps = column(trace.step)
        wanted = steps >= first
        processes = np.array([both.get(thread.process, (0, 0))[which] for thread in trace.threads])
        begin = processes[column(trace.thread)] if len(trace) else processes[:0]
        wanted &= (steps > first) | (np.arange(len(trace)) >= begin)
        if until is not None:
            wanted &= steps + later < until
        parts.append(trace.part(wanted, later=later))
    return parts[0], parts[1]


def _loops_begin(one: _Trainer, two: _Trainer, step: int) -> tuple[int, int]:
    mine, other = one.before_backward(step), two.before_backward(0)
    x, y = _called(one.trace, mine), _called(two.trace, other)
    while x and y and _alike(one.trace, mine[x - 1], two.trace, other[y - 1]):
        x, y = x - 1, y - 1
    return (
        mine[x] if x < len(mine) else one.backward.get(step, len(one.trace)),
        other[y] if y < len(other) else two.backward.get(0, len(two.trace)),
    )


def _called(trace: Trace, events: Sequence[int]) -> int:
    """Where among them the last model is called: its weights are recorded there, one by one."""
    weights = [at for at, event in enumerate(events) if trace.kind[event] == KIND_PARAM]
    if not weights:
        return len(events)
    at = weights[-1]
    while at and trace.kind[events[at - 1]] == KIND_PARAM:
        at -= 1
    return at


def _alike(one: Trace, i: int, other: Trace, j: int) -> bool:
    """True for the same at the same line."""
    if (one.kind[i], one.phase[i]) != (other.kind[j], other.phase[j]):
        return False
    if one.site_name(i) != other.site_name(j):
        return False
    return one.event(i).call_site == other.event(j).call_site


def aligned(straight: Trace, resumed: Trace, step: int) -> Alignment:
    """Which event is which, of two parts that `going_on` made.

    In the first step one run may do what the other does not: caches and buffers are made when they
    are first used. DistributedDataParallel copies gradients into its buckets in another order the
    first time, and makes others the second time: outside modules, what is copied, or has no values,
    may then be something else, and copies come in another order.
    """
    found = align(straight, resumed)
    mine, other = _bookkeeping(straight, step), _bookkeeping(resumed, step)
    known, unlike = told_apart(straight, resumed, found.pairs)
    moved = known & unlike & mine[found.pairs.mine] & other[found.pairs.other]
    for at in np.unique(column(straight.step)[found.pairs.mine[moved]]):
        here = moved & (column(straight.step)[found.pairs.mine] == at)
        if _results(straight, found.pairs.mine[here]) != _results(resumed, found.pairs.other[here]):
            moved &= ~here
    return Alignment(
        found.pairs.where(~moved),
        [i for i in found.only_a if straight.step[i] > step and not mine[i]],
        [j for j in found.only_b if resumed.step[j] > step and not other[j]],
    )


def _bookkeeping(trace: Trace, step: int) -> _Mask:
    """Of each event whether it is a copy, or has no values, outside modules, in the first two steps
    from `step` on.
    """
    outside, copies = (np.zeros(max(trace.sites, default=0) + 1, np.bool_) for _ in range(2))
    for site, (module, op) in trace.sites.items():
        outside[site], copies[site] = not module, op == _COPY
    number = column(trace.site)
    bare = copies[number] | ~trace.signatures.present
    return bare & outside[number] & (column(trace.step) <= step + 1)


def _results(trace: Trace, events: npt.NDArray[np.int64]) -> Counter[bytes | None]:
    return Counter(map(trace.signature, events.tolist()))


@dataclass(slots=True)
class _Items:
    """Items of one kind of state by name, and what is told of those that differ."""

    what: str
    name: str
    seen: dict[str, str | None] = field(default_factory=dict)
    used: bool = True

    def add(self, item: str, told: str | None) -> None:
        """One more item; `told` where it differs. Of several of one name one that does counts."""
        self.seen[item] = self.seen.get(item) or told

    def restored(self) -> Restored:
        """All of them."""
        differing = [told for told in self.seen.values() if told is not None]
        names = tuple(differing[:_NAMED])
        return Restored(
            self.what,  # type: ignore[arg-type]
            self.name,
            len(self.seen),
            len(differing),
            names,
            self.used,
        )


def restored(straight: Trace, resumed: Trace, pairs: Pairs, step: int) -> tuple[Restored, ...]:
    """What the resumed run began with, kind by kind, in the order of use; of `going_on`'s parts."""
    trainers, others = _trainers(straight), {t.process: t for t in _trainers(resumed)}
    weights, data = _Items("weights", ""), _Items("data", "")
    found: dict[tuple[str, str], _Items] = {("weights", ""): weights, ("data", ""): data}
    steps, kinds = column(straight.step)[pairs.mine], column(straight.kind)[pairs.mine]
    phases = column(straight.phase)[pairs.mine]
    for trainer in trainers:
        place = _place(straight, trainer) if len(trainers) > 1 else ""
        backward = trainer.backward.get(step, len(straight))
        own = trainer.mask[pairs.mine] & (steps == step)
        entering = own & (pairs.mine < backward) & (kinds == KIND_PARAM) & (phases == WEIGHTS)
        _add(weights, straight, resumed, pairs.where(entering), _parameter, place)
        _add(data, straight, resumed, pairs.where(own & (kinds == KIND_BATCH)), _batch, place)
        if trainer.process in others:
            _add_generators(found, trainer, others[trainer.process], step, place)
        for i, j in pairs.where(own & (kinds == KIND_STATE) & (phases == OPTIMIZER)):
            what, _, name = straight.site_name(i)[1].partition(":")
            what = "optimizer" if what == "state" else what
            items = found.setdefault((what, name), _Items(what, name))
            _add_outputs(items, straight.event(i).outputs, resumed.event(j).outputs, place)
    return tuple(items.restored() for items in found.values())


def _place(trace: Trace, trainer: _Trainer) -> str:
    first = int(np.argmax(trainer.mask))
    return f"rank {trace.rank(first)} "


def _add(
    items: _Items,
    straight: Trace,
    resumed: Trace,
    pairs: Pairs,
    named: Callable[[Trace, int], str],
    place: str,
) -> None:
    for i, j in pairs:
        mine, other = straight.signature(i), resumed.signature(j)
        if mine is not None and other is not None:
            name = place + named(straight, i)
            items.add(name, name if mine != other else None)


def _parameter(trace: Trace, i: int) -> str:
    module, op = trace.site_name(i)
    return ".".join(filter(None, (module, op.removeprefix("param:"))))


def _batch(trace: Trace, i: int) -> str:
    return f"{trace.site_name(i)[1]}/{trace.call_index[i]}"


def _add_outputs(
    items: _Items, mine: Sequence[Output], other: Sequence[Output], place: str
) -> None:
    """What an optimizer has, item by item: each has a name, and a plain value shows in it."""
    one, two = ({o.name.partition("=")[0]: o for o in outputs} for outputs in (mine, other))
    for name in {**one, **two}:
        x, y = one.get(name), two.get(name)
        alike = x is not None and y is not None and x.bits == y.bits
        items.add(place + name, None if alike else place + _told(x, y))


def _told(x: Output | None, y: Output | None) -> str:
    if x is None or y is None:
        there = x or y
        assert there is not None
        return f"{there.name} ({'straight' if y is None else 'resumed'} only)"
    if x.name == y.name:
        return x.name
    return f"{y.name}, not {x.name.partition('=')[2]}"


def _add_generators(
    found: dict[tuple[str, str], _Items], one: _Trainer, two: _Trainer, step: int, place: str
) -> None:
    """The global generators as they were where the loss goes backward, or last before."""
    mine, other = _states(one, step), _states(two, step)
    for name in mine:
        if name in other:
            items = found.setdefault(("generator", name), _Items("generator", name, used=False))
            items.used |= _drawn_from(one, name)
            differs = mine[name] != other[name]
            items.add(place or name, (place.strip() or name) if differs else None)


def _states(trainer: _Trainer, step: int) -> dict[str, bytes | None]:
    trace, states = trainer.trace, {}
    for i in trainer.before_backward(step, states=True):
        op = trace.site_name(i)[1]
        if op.startswith("rng:"):
            states[op.removeprefix("rng:")] = trace.signature(i)
    return states


def _drawn_from(trainer: _Trainer, name: str) -> bool:
    """True if a generator has several states in a part."""
    trace = trainer.trace
    events = np.flatnonzero(trainer.mask & (column(trace.kind) == KIND_RNG)).tolist()
    states = {trace.signature(i) for i in events if trace.site_name(i)[1] == f"rng:{name}"}
    return len(states) > 1
