"""Ranks of one run that hold the same weights, until they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from repro_audit.diagnose.align import column
from repro_audit.diagnose.trainers import trainers, weight_name
from repro_audit.model.codes import KIND_PARAM
from repro_audit.trace import Trace


@dataclass(frozen=True, slots=True)
class ReplicaDrift:
    """Where ranks first part: after `step`, in the weights `names`, on `ranks`, unlike most."""

    step: int
    names: tuple[str, ...]
    ranks: tuple[int, ...]


def replica_drift(trace: Trace) -> ReplicaDrift | None:
    """The first step after which weights differ that had been the same on all ranks.

    Weights that ranks never learnt in common are no replicas: sharded ones, models of their own.
    None where nothing drifts, or there are no ranks, or buffers stand among the weights, of which
    each rank may have its own: in a trace of beginnings.
    """
    known = {
        f.process: int(f.closing["rank"]) for f in trace.files if f.closing.get("rank") is not None
    }
    if len(known) < 2 or trace.plan.get("beginnings"):
        return None
    ranks = {known[p]: trainer for p, trainer in trainers(trace).items() if p in known}
    begins: dict[int, dict[str, bytes]] = {}
    # By step and name: each rank's weight.
    after: dict[int, dict[str, dict[int, bytes]]] = {}
    for rank, trainer in ranks.items():
        for i in np.flatnonzero(trainer.mask & (column(trace.kind) == KIND_PARAM)).tolist():
            step, name, signature = trace.step[i], weight_name(trace, i), trace.signature(i)
            if signature is None:
                continue
            begins.setdefault(rank, {}).setdefault(name, signature)
            if i > trainer.backward.get(step, len(trace)):
                after.setdefault(step, {}).setdefault(name, {})[rank] = signature
    same: set[str] = set()
    for step in sorted(after):
        whole = {n: each for n, each in after[step].items() if len(each) == len(ranks)}
        agreed = {name for name, each in whole.items() if len(set(each.values())) == 1}
        parted = sorted(same & set(whole) - agreed)
        if parted:
            others = {rank for name in parted for rank in outliers(whole[name])}
            return ReplicaDrift(step, tuple(parted), tuple(sorted(others)))
        # Parts of their own may begin alike, as zeros.
        same |= {
            name
            for name in agreed
            if all(value != begins[rank][name] for rank, value in whole[name].items())
        }
    return None


def outliers(each: Mapping[int, bytes]) -> list[int]:
    """Ranks that do not have what most have; of equally many, what the first has is right."""
    times = Counter(each.values())
    right = each[min(each, key=lambda rank: (-times[each[rank]], rank))]
    return [rank for rank, value in each.items() if value != right]
