"""The processes of a run that train: their main threads, and how a step of theirs begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import column, threads_of
from repro_audit.model.codes import BACKWARD, KIND_BATCH, KIND_PARAM, KIND_RNG
from repro_audit.trace import Trace

Mask = npt.NDArray[np.bool_]
# Signatures by module and op.
Named = dict[tuple[str, str], bytes]


@dataclass(slots=True)
class Pass:
    """What comes before one backward of a step: the last that was seen of each value."""

    step: int
    number: int
    weights: Named = field(default_factory=dict)
    batches: Named = field(default_factory=dict)


class Trainer:
    """A process whose main thread goes backward."""

    def __init__(self, trace: Trace, process: str) -> None:
        self.trace = trace
        self.process = process
        self.mask: Mask = np.isin(column(trace.thread), threads_of(trace)[process, ""])
        events = np.flatnonzero(self.mask & (column(trace.phase) == BACKWARD))
        steps, first = np.unique(column(trace.step)[events], return_index=True)
        # The first backward of each step.
        self.backward: dict[int, int] = dict(
            zip(steps.tolist(), events[first].tolist(), strict=True)
        )

    def events(self, step: int) -> list[int]:
        """The main thread's events of a step, without generators' states and seeds."""
        wanted = self.mask & (column(self.trace.step) == step)
        return np.flatnonzero(wanted & (column(self.trace.kind) != KIND_RNG)).tolist()

    def states(self, step: int) -> dict[str, bytes | None]:
        """The global generators where the step's loss goes backward, or as last seen before."""
        trace, found = self.trace, {}
        wanted = self.mask & (column(trace.step) == step) & (column(trace.kind) == KIND_RNG)
        wanted[self.backward.get(step, len(trace)) :] = False
        for i in np.flatnonzero(wanted).tolist():
            op = trace.site_name(i)[1]
            if op.startswith("rng:"):
                found[op.removeprefix("rng:")] = trace.signature(i)
        return found

    @cached_property
    def passes(self) -> list[Pass]:
        """Each backward with what comes before it, since the one before or the step's beginning."""
        return [found for step in sorted(self.backward) for found in self._passes(step)]

    def _passes(self, step: int) -> Iterator[Pass]:
        trace, found, backward = self.trace, Pass(step, 0), False
        for i in self.events(step):
            if trace.phase[i] == BACKWARD:
                if not backward:
                    yield found
                backward = True
                continue
            if trace.kind[i] not in {KIND_PARAM, KIND_BATCH}:
                continue
            if backward:
                found, backward = Pass(step, found.number + 1), False
            signature = trace.signature(i)
            if signature is not None:
                named = found.weights if trace.kind[i] == KIND_PARAM else found.batches
                named[trace.site_name(i)] = signature


def weight_name(trace: Trace, i: int) -> str:
    """The path and name of the parameter or buffer of event `i`."""
    module, op = trace.site_name(i)
    return ".".join(filter(None, (module, op.removeprefix("param:"))))


def trainers(trace: Trace) -> dict[str, Trainer]:
    """By their names, in order: the program's own process, and those that it started."""
    processes = sorted(process for process, thread in threads_of(trace) if not thread)
    found = {process: Trainer(trace, process) for process in processes}
    return {process: trainer for process, trainer in found.items() if trainer.backward}
