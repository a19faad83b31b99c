"""What a resumed run began with, kind by kind, beside what the straight run had at that step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from repro_audit.diagnose.align import Pairs, column
from repro_audit.diagnose.trainers import Trainer, trainers, weight_name
from repro_audit.model import Output, Restored
from repro_audit.model.codes import (
    DATA,
    KIND_BATCH,
    KIND_PARAM,
    KIND_RNG,
    KIND_STATE,
    OPTIMIZER,
    WEIGHTS,
)
from repro_audit.trace import Trace

_NAMED = 100


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
    """What the resumed run began with, in the order of use; of two parts that are aligned."""
    mine, others = trainers(straight), trainers(resumed)
    weights, data = _Items("weights", ""), _Items("data", "")
    found: dict[tuple[str, str], _Items] = {("weights", ""): weights, ("data", ""): data}
    steps, kinds = column(straight.step)[pairs.mine], column(straight.kind)[pairs.mine]
    phases = column(straight.phase)[pairs.mine]
    for process, trainer in mine.items():
        place = _place(straight, trainer) if len(mine) > 1 else ""
        backward = trainer.backward.get(step, len(straight))
        own = trainer.mask[pairs.mine] & (steps == step)
        entering = own & (pairs.mine < backward) & (kinds == KIND_PARAM) & (phases == WEIGHTS)
        _add(weights, straight, resumed, pairs.where(entering), weight_name, place)
        came_in = pairs.where(own & (kinds == KIND_BATCH)).where(
            np.array(
                [_from_outside(straight, i) for i, _ in pairs.where(own & (kinds == KIND_BATCH))],
                np.bool_,
            )
        )
        _add(data, straight, resumed, came_in, _batch, place)
        if process in others:
            _add_generators(found, trainer, others[process], step, place)
        for i, j in pairs.where(own & (kinds == KIND_STATE) & (phases == OPTIMIZER)):
            what, _, name = straight.site_name(i)[1].partition(":")
            what = "optimizer" if what == "state" else what
            items = found.setdefault((what, name), _Items(what, name))
            _add_outputs(items, straight.event(i).outputs, resumed.event(j).outputs, place)
    return tuple(items.restored() for items in found.values())


def _place(trace: Trace, trainer: Trainer) -> str:
    first = int(np.argmax(trainer.mask))
    return f"rank {trace.rank(first)} "


def _from_outside(trace: Trace, i: int) -> bool:
    """False for a module's input that the program computed, of which data are but a part."""
    if not trace.site_name(i)[1].startswith("inputs:"):
        return True
    makers = [trace.maker(i, o.digest) for o in trace.event(i).outputs if o.digest is not None]
    return any(maker is None or trace.phase[maker] == DATA for maker in makers)


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


def _batch(trace: Trace, i: int) -> str:
    return f"{trace.site_name(i)[1]}/{trace.call_index[i]}"


def _add_outputs(
    items: _Items, mine: Sequence[Output], other: Sequence[Output], place: str
) -> None:
    """What an optimizer has, item by item; a plain value shows in its name.

    As many as there are on the other side are the same ones in order: a model that was not yet
    called has no names for them.
    """
    if len(mine) == len(other):
        for x, y in zip(mine, other, strict=True):
            items.add(place + _base(x), None if _same(x, y) else place + _told(x, y))
        return
    one, two = ({_base(output): output for output in outputs} for outputs in (mine, other))
    for name in {**one, **two}:
        here, there = one.get(name), two.get(name)
        alike = here is not None and there is not None and _same(here, there)
        items.add(place + name, None if alike else place + _told(here, there))


def _base(output: Output) -> str:
    return output.name.partition("=")[0]


def _same(x: Output, y: Output) -> bool:
    return (x.spec.dtype, x.spec.shape, x.digest) == (y.spec.dtype, y.spec.shape, y.digest)


def _told(x: Output | None, y: Output | None) -> str:
    if x is None or y is None:
        there = x or y
        assert there is not None
        return f"{there.name} ({'straight' if y is None else 'resumed'} only)"
    if "=" not in x.name:
        return x.name
    return f"{y.name}, not {x.name.partition('=')[2]}"


def _add_generators(
    found: dict[tuple[str, str], _Items], one: Trainer, two: Trainer, step: int, place: str
) -> None:
    mine, other = one.states(step), two.states(step)
    for name in mine:
        if name in other:
            items = found.setdefault(("generator", name), _Items("generator", name, used=False))
            items.used |= _drawn_from(one, name)
            differs = mine[name] != other[name]
            items.add(place or name, (place.strip() or name) if differs else None)


def _drawn_from(trainer: Trainer, name: str) -> bool:
    """True if a generator has several states in a part."""
    trace = trainer.trace
    events = np.flatnonzero(trainer.mask & (column(trace.kind) == KIND_RNG)).tolist()
    states = {trace.signature(i) for i in events if trace.site_name(i)[1] == f"rng:{name}"}
    return len(states) > 1
