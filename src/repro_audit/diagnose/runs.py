"""Several runs at once: how many outcomes there are, and where pairs of them part."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from repro_audit.diagnose.align import RNG_KIND
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.model import EventCounts, Observed, Sighting, SiteKey
from repro_audit.trace import Trace


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What N runs did: how often they differed, where, and the divergence to report."""

    observed: Observed
    counts: EventCounts
    divergence: Divergence | None
    sightings: tuple[Sighting, ...]
    aligned: float


def compare_runs(traces: Sequence[Trace]) -> Outcomes:
    """Compare every pair of runs; runs alike are compared once.

    The divergence reported is that of the most pairs; of equally many, the earliest. Costs one
    alignment for each pair of distinct outcomes.
    """
    groups: dict[bytes, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(_whole(trace), []).append(trace)
    members = list(groups.values())
    pairs = len(traces) * (len(traces) - 1) // 2
    found: dict[SiteKey, Divergence] = {}
    times: Counter[SiteKey] = Counter()
    aligned = 1.0
    for one, other in combinations(members, 2):
        divergence, _, share = compare(one[0], other[0])
        aligned = min(aligned, share)
        if divergence is None:
            continue
        key = divergence.origin.key
        found.setdefault(key, divergence)
        times[key] += len(one) * len(other)
    observed = Observed(len(traces), len(members), sum(times.values()), pairs)
    if not found:
        _, counts, aligned = compare(traces[0], traces[-1])
        return Outcomes(observed, counts, None, (), aligned)
    ordered = sorted(found, key=lambda key: (-times[key], found[key].origin.event))
    first = found[ordered[0]]
    sightings = tuple(Sighting(found[key].origin, times[key]) for key in ordered)
    return Outcomes(observed, first.counts, first, sightings, aligned)


def _whole(trace: Trace) -> bytes:
    """Equal for runs that did the same with the same results, thread by thread."""
    threads: dict[int, hashlib.blake2b] = {}
    for i, (kind, thread) in enumerate(zip(trace.kind, trace.thread, strict=True)):
        if kind == RNG_KIND:
            continue
        state = threads.get(thread)
        if state is None:
            state = threads[thread] = hashlib.blake2b(digest_size=16)
        place = (kind, trace.step[i], trace.phase[i], *trace.site_name(i))
        state.update(repr(place).encode())
        state.update(trace.signature(i) or b"")
    return b"".join(
        thread.to_bytes(4, "little") + threads[thread].digest() for thread in sorted(threads)
    )
