"""Did two runs start alike? Weights, inputs and random numbers, before anything was computed."""

from __future__ import annotations

import numpy as np

from repro_audit.diagnose.align import Alignment, column, random_ones
from repro_audit.diagnose.manifests import lookup
from repro_audit.model import Start
from repro_audit.model.codes import KIND_BATCH, KIND_PARAM, RANDOM
from repro_audit.trace import Trace

# What decides which random bits a seed gives, or how kernels compute.
_MACHINE = (
    "versions.torch",
    "platform.machine",
    "torch.backends.cpu.get_cpu_capability",
)


def draws_compare(a: Trace, b: Trace) -> bool:
    """False where equal seeds may give other numbers: another machine, device, ISA or torch."""
    kinds = [{device.partition(":")[0] for device in run.devices()} - {"meta"} for run in (a, b)]
    if kinds[0] != kinds[1]:
        return False
    fields = (*_MACHINE, *(f"torch.{kind}.devices" for kind in kinds[0] - {"cpu"}))
    return all(lookup(a.manifest, field) == lookup(b.manifest, field) for field in fields)


def start_of(a: Trace, b: Trace, alignment: Alignment) -> tuple[Start, int | None]:
    """What two aligned runs began with, how much of it differs, and the first event that does.

    Weights are those of a model before its first forward, inputs are batches and what else comes in
    from outside, at any step; draws are what random operators gave. Where machines differ, what one
    run draws by an operator that the other has not counts as differing, unless it was given them.
    """
    counts = {name: [0, 0] for name in ("weights", "inputs", "draws")}
    first: int | None = None
    kinds = column(a.kind)
    wanted = (kinds == KIND_PARAM) | (kinds == KIND_BATCH) | random_ones(a)
    for i, j in alignment.pairs.where(wanted[alignment.pairs.mine]):
        name = _name(a, i)
        mine, other = a.signature(i), b.signature(j)
        if name is None or mine is None or other is None:
            continue
        counts[name][0] += 1
        if mine != other:
            counts[name][1] += 1
            first = i if first is None else min(first, i)
    if not draws_compare(a, b) and not (_was_given_draws(a) or _was_given_draws(b)):
        alone = np.setdiff1d(np.flatnonzero(random_ones(a)), alignment.pairs.mine)
        counts["draws"] = [n + len(alone) for n in counts["draws"]]
        if len(alone) and (first is None or alone[0] < first):
            first = int(alone[0])
    weights, inputs, draws = ((had, differ) for had, differ in counts.values())
    return Start(weights, inputs, draws), first


def _was_given_draws(trace: Trace) -> bool:
    given = trace.plan.get("given") or ()
    return any(each["what"] in {"draws", "all"} for each in given)


def _name(trace: Trace, i: int) -> str | None:
    kind = trace.kind[i]
    if kind == KIND_PARAM:
        initial = trace.step[i] == 0 and trace.call_index[i] == 0
        return "weights" if initial else None
    if kind == KIND_BATCH:
        return "inputs"
    return "draws" if trace.flags[i] & RANDOM else None
