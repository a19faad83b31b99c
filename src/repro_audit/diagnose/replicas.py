"""Ranks of one run that hold the same weights, until they do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from repro_audit.diagnose.align import column, threads_of
from repro_audit.model.codes import BACKWARD, KIND_PARAM
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
    ranks = _ranks(trace)
    if len(ranks) < 2 or trace.plan.get("beginnings"):
        return None
    # By step and name: each rank's weight.
    after: dict[int, dict[str, dict[int, bytes]]] = {}
    for process, rank in ranks.items():
        for step, name, signature in _weights_after(trace, process):
            after.setdefault(step, {}).setdefault(name, {})[rank] = signature
    begins = {rank: _initial(trace, process) for process, rank in ranks.items()}
    same: set[str] = set()
    for step in sorted(after):
        whole = {n: each for n, each in after[step].items() if len(each) == len(ranks)}
        agreed = {name for name, each in whole.items() if len(set(each.values())) == 1}
        parted = sorted(same & set(whole) - agreed)
        if parted:
            others = {rank for name in parted for rank in _outliers(whole[name])}
            return ReplicaDrift(step, tuple(parted), tuple(sorted(others)))
        # Parts of their own may begin alike, as zeros.
        same |= {
            name
            for name in agreed
            if all(value != begins[rank].get(name) for rank, value in whole[name].items())
        }
    return None


def _ranks(trace: Trace) -> dict[str, int]:
    """The rank of each process that has one and goes backward."""
    backward = np.flatnonzero(column(trace.phase) == BACKWARD)
    threads = np.unique(column(trace.thread)[backward]).tolist()
    training = {trace.threads[number].process for number in threads}
    return {
        file.process: int(file.closing["rank"])
        for file in trace.files
        if file.closing.get("rank") is not None and file.process in training
    }


def _initial(trace: Trace, process: str) -> dict[str, bytes]:
    """Each weight as a process records it first."""
    mine = np.isin(column(trace.thread), threads_of(trace).get((process, ""), ()))
    found: dict[str, bytes] = {}
    for i in np.flatnonzero(mine & (column(trace.kind) == KIND_PARAM)).tolist():
        signature = trace.signature(i)
        if signature is not None:
            found.setdefault(_name(trace, i), signature)
    return found


def _name(trace: Trace, i: int) -> str:
    module, op = trace.site_name(i)
    return ".".join(filter(None, (module, op.removeprefix("param:"))))


def _weights_after(trace: Trace, process: str) -> list[tuple[int, str, bytes]]:
    """(step, name, value) of each weight that a process records after a backward of that step."""
    mine = np.isin(column(trace.thread), threads_of(trace).get((process, ""), ()))
    steps, phases = column(trace.step), column(trace.phase)
    began: dict[int, int] = {}
    for i in np.flatnonzero(mine & (phases == BACKWARD)).tolist():
        began.setdefault(int(steps[i]), i)
    found = []
    for i in np.flatnonzero(mine & (column(trace.kind) == KIND_PARAM)).tolist():
        signature = trace.signature(i)
        step = trace.step[i]
        if signature is not None and i > began.get(step, len(trace)):
            found.append((step, _name(trace, i), signature))
    return found


def _outliers(each: dict[int, bytes]) -> list[int]:
    """Ranks that do not have what most have; of equally many, the first one's is right."""
    times = Counter(each.values())
    right = each[min(each, key=lambda rank: (-times[each[rank]], rank))]
    return [rank for rank, value in each.items() if value != right]
