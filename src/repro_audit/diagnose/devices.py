"""Two devices, of which neither need be wrong."""

from __future__ import annotations

import numpy as np

from repro_audit.diagnose.align import column
from repro_audit.diagnose.case import Case
from repro_audit.model import Cause, SiteKey
from repro_audit.model.codes import RANDOM
from repro_audit.trace import Trace


def other_device(case: Case) -> Cause | None:
    """That the runs were on two kinds of device: what they draw differs, or how they round."""
    divergence = case.divergence
    ends = ((divergence.a, divergence.i), (divergence.b, divergence.j))
    events = [(trace, at) for trace, at in ends if at is not None]
    outputs = [trace.event(at).outputs for trace, at in events]
    kinds = [found[0].spec.device.partition(":")[0] for found in outputs if found]
    if len(set(kinds)) < 2:
        return None
    both = f"{kinds[0]} and {kinds[1]}"
    if case.flags & RANDOM:
        return _draws(
            f"{both} draw other random numbers from one seed",
            "draw on the CPU and move the result, or feed both the same tensors",
        )
    differing = case.zoomed is not None and case.zoomed.inputs_identical is False
    if differing:
        (a, i), (b, j) = events
        drawn = [*_draws_of_one(a, i, b, j), *_draws_of_one(b, j, a, i)]
        if drawn:
            key = min(drawn, key=lambda key: key.step)
            where = f" (in {key.module})" if key.module else ""
            said = f"{both} draw other random numbers from one seed, first by other ops"
            return _draws(
                f"{said}: {key.op.rpartition('.')[0]}{where}",
                f"give both the same: record --capture full --device {kinds[0]} -o A, then "
                f"verify A --same-start --device {kinds[1]}",
            )
    return Cause(
        "config-difference",
        "likely",
        (f"{both} compute this op by other kernels, which round differently",),
        ("judge it by its size: the relative difference says whether rounding explains it",),
    )


def _draws(evidence: str, remedy: str) -> Cause:
    return Cause("config-difference", "likely", (evidence,), (remedy,))


def _draws_of_one(trace: Trace, end: int, other: Trace, other_end: int) -> list[SiteKey]:
    """What was drawn before an event by an op that the other run has not made there."""
    there = set(_drawn(other, other_end))
    return [key for key in _drawn(trace, end) if key not in there]


def _drawn(trace: Trace, end: int) -> list[SiteKey]:
    return [trace.key(int(i)) for i in np.flatnonzero(column(trace.flags)[:end] & RANDOM)]
