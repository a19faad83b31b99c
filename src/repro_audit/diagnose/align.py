"""Aligns two runs' events by what they are, never by bare position."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import compress

from repro_audit.trace import Trace
from repro_audit.trace.schema import KINDS, PHASES

RNG_KIND = 3
# Above this many pairs of events a gap is left unmatched: by then the runs have parted.
_GAP_LIMIT = 4_000_000
_CALL_BITS = 40

Block = tuple[int, int, int]


@dataclass(slots=True)
class Alignment:
    """Which event of one run is which of the other; all indices ascend within a thread."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    only_a: list[int] = field(default_factory=list)
    only_b: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Thread:
    """One thread's events and, for each, a number that is the same for the same structure."""

    events: list[int]
    keys: list[int]
    call_index: array[int]
    ended: bool

    def calls(self, start: int, end: int) -> list[int]:
        """Structure and call index, in one number, of a stretch of the events."""
        stretch = zip(self.keys[start:end], self.events[start:end], strict=True)
        return [key << _CALL_BITS | self.call_index[event] for key, event in stretch]


def align(a: Trace, b: Trace, *, rng: bool = False) -> Alignment:
    """Align the value events of two runs (with `rng`, their generator events) thread by thread.

    Two events can be the same only if kind, step, phase, module path and op agree. The common
    prefix and suffix are matched first, so the first structural difference is exact; what lies
    between is anchored on events that occur once (by call index) and then diffed. A thread that
    was cut off, by the program's end or by a kill, is compared as far as both runs came with it.
    About 1 s for 1M equal events, 2 s with a difference at each end.
    """
    names: dict[tuple[str, str], int] = {}
    steps = max(max(a.step, default=0), max(b.step, default=0)) + 1
    result = Alignment()
    all_a, all_b = threads_of(a), threads_of(b)
    for thread in sorted({*all_a, *all_b}):
        mine = _thread(a, all_a.get(thread, ()), rng, names, steps)
        other = _thread(b, all_b.get(thread, ()), rng, names, steps)
        _cut_alike(mine, other)
        at_a = at_b = 0
        for x, y, size in (*_blocks(mine, other), (len(mine.events), len(other.events), 0)):
            result.only_a.extend(mine.events[at_a:x])
            result.only_b.extend(other.events[at_b:y])
            at_a, at_b = x + size, y + size
            result.pairs.extend(zip(mine.events[x:at_a], other.events[y:at_b], strict=True))
    return result


def threads_of(trace: Trace) -> dict[tuple[str, str], tuple[int, ...]]:
    """The numbers of a trace's threads by what names them in any run."""
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for number, thread in enumerate(trace.threads):
        name = thread.process, thread.name
        found[name] = (*found.get(name, ()), number)
    return found


def _thread(
    trace: Trace,
    numbers: Sequence[int],
    rng: bool,
    names: dict[tuple[str, str], int],
    steps: int,
) -> _Thread:
    sites = {site: names.setdefault(name, len(names)) for site, name in trace.sites.items()}
    wanted = [
        owner in numbers and (kind == RNG_KIND) == rng
        for kind, owner in zip(trace.kind, trace.thread, strict=True)
    ]
    columns = zip(trace.kind, trace.step, trace.phase, trace.site, strict=True)
    keys = [
        ((sites[site] * len(PHASES) + phase) * len(KINDS) + kind) * steps + step
        for kind, step, phase, site in compress(columns, wanted)
    ]
    ended = all(trace.threads[number].ended for number in numbers)
    return _Thread(list(compress(range(len(trace)), wanted)), keys, trace.call_index, ended)


def _cut_alike(a: _Thread, b: _Thread) -> None:
    """Leave out what one run did after the other, cut off, had come no further.

    The last event of a thread that was cut off may itself be there in part.
    """
    for one in (a, b):
        if not one.ended:
            del one.events[-1:], one.keys[-1:]
    for one, other in ((a, b), (b, a)):
        if not one.ended and len(one.events) < len(other.events):
            del other.events[len(one.events) :], other.keys[len(one.keys) :]


def _blocks(mine: _Thread, other: _Thread) -> Iterator[Block]:
    """Matched stretches, ascending: place in `mine`, place in `other`, length."""
    a, b = mine.keys, other.keys
    shortest = min(len(a), len(b))
    head = _common(a, b, shortest)
    tail = _common(a[head:][::-1], b[head:][::-1], shortest - head)
    end_a, end_b = len(a) - tail, len(b) - tail
    yield 0, 0, head
    at_a, at_b = head, head
    for x, y in _anchors(mine.calls(head, end_a), other.calls(head, end_b)):
        yield from _gap(a, b, at_a, head + x, at_b, head + y)
        yield head + x, head + y, 1
        at_a, at_b = head + x + 1, head + y + 1
    yield from _gap(a, b, at_a, end_a, at_b, end_b)
    yield end_a, end_b, tail


def _common(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """How many events, of at most `limit`, agree from the start."""
    differing = (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return min(next(differing, limit), limit)


def _once(events: Sequence[int]) -> dict[int, int]:
    """Where the events are that occur once, ascending."""
    places = {event: at for at, event in enumerate(events)}
    if len(places) < len(events):
        times = Counter(events)
        places = {event: at for event, at in places.items() if times[event] == 1}
    return places


def _anchors(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """The longest ascending run of events that occur once on each side (patience)."""
    places = _once(b)
    common = [(x, places[event]) for event, x in _once(a).items() if event in places]
    tops: list[int] = []
    piles: list[int] = []
    previous: list[int] = []
    for at, (_, y) in enumerate(common):
        pile = bisect_left(tops, y)
        previous.append(piles[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(y)
            piles.append(at)
        else:
            tops[pile] = y
            piles[pile] = at
    chain: list[tuple[int, int]] = []
    at = piles[-1] if piles else -1
    while at >= 0:
        chain.append(common[at])
        at = previous[at]
    return chain[::-1]


def _gap(
    a: Sequence[int], b: Sequence[int], from_a: int, to_a: int, from_b: int, to_b: int
) -> Iterator[Block]:
    if from_a == to_a or from_b == to_b or (to_a - from_a) * (to_b - from_b) > _GAP_LIMIT:
        return
    matcher = SequenceMatcher(None, a[from_a:to_a], b[from_b:to_b], autojunk=False)
    for x, y, size in matcher.get_matching_blocks():
        yield from_a + x, from_b + y, size
