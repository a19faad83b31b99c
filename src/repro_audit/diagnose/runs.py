"""Several runs at once: how many outcomes there are, and where pairs of them part."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.model import EventCounts, Observed, Sighting, SiteKey
from repro_audit.model.codes import KIND_RNG
from repro_audit.trace import Trace

# With fewer events in common than this share, two runs are of different programs.
SAME_PROGRAM = 0.5
_HEAD = struct.Struct("<bqbII")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What N runs did: how often they differed, where, and the divergence to report."""

    observed: Observed
    counts: EventCounts
    divergence: Divergence | None
    sightings: tuple[Sighting, ...]
    aligned: float


def compare_runs(
    traces: Sequence[Trace], *, values_only: bool = False, draws: bool = True
) -> Outcomes:
    """Compare every pair of runs; runs alike are compared once. The switches are `compare`'s.

    The divergence reported is that of the most pairs; of equally many, the earliest. Costs one
    alignment for each pair of distinct outcomes.
    """
    members = [[trace] for trace in traces]
    # Of two there is one pair, which tells as much.
    if len(traces) > 2:
        groups: dict[bytes, list[Trace]] = {}
        for trace in traces:
            groups.setdefault(same_in_all(trace), []).append(trace)
        members = list(groups.values())
    pairs = len(traces) * (len(traces) - 1) // 2
    found: dict[SiteKey, Divergence] = {}
    times: Counter[SiteKey] = Counter()
    apart: set[tuple[int, int]] = set()
    aligned = 1.0
    for (x, one), (y, other) in combinations(enumerate(members), 2):
        divergence, _, share = compare(one[0], other[0], values_only=values_only, draws=draws)
        aligned = min(aligned, share)
        if divergence is None:
            continue
        apart.add((x, y))
        key = divergence.origin.key
        found.setdefault(key, divergence)
        times[key] += len(one) * len(other)
    # Runs that fingerprinted different events may agree in all that both of them read.
    outcomes: list[int] = []
    for y in range(len(members)):
        if all((x, y) in apart for x in outcomes):
            outcomes.append(y)
    observed = Observed(len(traces), len(outcomes), sum(times.values()), pairs)
    if not found:
        _, counts, aligned = compare(traces[0], traces[-1], values_only=values_only, draws=draws)
        return Outcomes(observed, counts, None, (), aligned)
    ordered = sorted(found, key=lambda key: (-times[key], found[key].origin.event))
    first = found[ordered[0]]
    sightings = tuple(Sighting(found[key].origin, times[key]) for key in ordered)
    return Outcomes(observed, first.counts, first, sightings, aligned)


def same_in_all(trace: Trace) -> bytes:
    """Bytes that are equal for runs that did the same with the same results, thread by thread."""
    names = {site: repr(name).encode() for site, name in trace.sites.items()}
    threads = [hashlib.blake2b(repr(thread).encode(), digest_size=16) for thread in trace.threads]
    columns = zip(trace.kind, trace.step, trace.phase, trace.thread, trace.site, strict=True)
    for i, (kind, step, phase, thread, site) in enumerate(columns):
        if kind == KIND_RNG:
            continue
        state = threads[thread]
        name, signature = names[site], trace.signature(i) or b""
        # Lengths first: no two lists of events may read as the same bytes.
        head = _HEAD.pack(kind, step, phase, len(name), len(signature))
        state.update(head + name + signature)
    return b"".join(sorted(state.digest() for state in threads))
