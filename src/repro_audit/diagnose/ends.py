"""Recordings of which one ends before the others: how far all of them came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro_audit.diagnose.align import align, column, threads_of
from repro_audit.model.codes import KIND_RNG
from repro_audit.trace import Trace, TraceFile

_Mask = npt.NDArray[np.bool_]
# How a program ends that was not through.
_EARLY = frozenset({"stopped", "raised", "interrupted", "exited", "apart"})


@dataclass(frozen=True, slots=True)
class Ended:
    """Where a run was ended, `after step 1` or `in step 2`, and by what."""

    where: str
    why: str

    @property
    def said(self) -> str:
        """Of the run: `ends after step 1 (--steps 2)`."""
        return f"ends {self.where} ({self.why})"


def ended_early(trace: Trace) -> Ended | None:
    """How a run ended before its program was through; None where it was."""
    closing = trace.closing
    outcome = closing.get("outcome")
    if outcome not in _EARLY:
        return None
    real = _real(trace)
    main = real & np.isin(column(trace.thread), threads_of(trace).get(("", ""), ()))
    # A process that only starts others makes no steps itself.
    step = int(column(trace.step)[main if main.any() else real].max(initial=0))
    where = f"in step {step}" if step >= trace.steps else f"after step {trace.steps - 1}"
    why = {
        "stopped": f"--steps {trace.plan.get('steps')}",
        "interrupted": "it was interrupted",
        "exited": f"exit code {closing.get('exit_code')}",
        "apart": "where two runs in lock-step came apart",
    }
    return Ended(where, why.get(outcome) or str(closing.get("error")))


def as_far_as_all_came(traces: Sequence[Trace]) -> tuple[list[Trace], dict[int, Ended]]:
    """What can be compared of the runs, and by its place each that was ended before another was.

    What another did later is left out, and what a run so ended had in the end: others have nothing
    like it. Costs an alignment for each pair of which one was ended.
    """
    kept = [np.ones(len(trace), np.bool_) for trace in traces]
    ends: dict[int, Ended] = {}
    for x, short in enumerate(traces):
        ended = ended_early(short)
        for y, long in enumerate(traces):
            if ended is None or x == y:
                continue
            later = _later(short, long)
            if later.any():
                kept[y] &= ~later
                kept[x][short.ending()] = False
                ends[x] = ended
    parts = [
        trace if mask.all() else trace.part(mask) for trace, mask in zip(traces, kept, strict=True)
    ]
    return parts, ends


def _real(trace: Trace) -> _Mask:
    """Of each event whether it is the program's doing, and no state that is told beside that."""
    real: _Mask = column(trace.kind) != KIND_RNG
    real[trace.ending()] = False
    return real


def _later(short: Trace, long: Trace) -> _Mask:
    """Of each event of `long` whether it comes after all that `short`, which was ended, has."""
    alignment = align(short, long)
    partner = np.full(len(short), -1, np.int64)
    partner[alignment.pairs.mine] = alignment.pairs.other
    real = _real(short)
    later = np.zeros(len(long), np.bool_)
    for file in short.files:
        if file.closing.get("outcome") in _EARLY:
            later |= _of_process(file, short, long, partner, real)
    return later if (later & _real(long)).any() else np.zeros(len(long), np.bool_)


def _of_process(
    file: TraceFile, short: Trace, long: Trace, partner: npt.NDArray[np.int64], real: _Mask
) -> _Mask:
    mine, other = column(short.thread), column(long.thread)
    names, places = threads_of(short), np.arange(len(long))
    main = file.process, file.threads[0][0]
    last: dict[tuple[str, str], int] = {}
    for name in (main, *names):
        own = np.flatnonzero(real & np.isin(mine, names.get(name, ())))
        last[name] = -1
        if len(own) and partner[own[-1]] >= 0:
            last[name] = int(partner[own[-1]])
        elif len(own):
            # It ended on a path of its own: the other is followed to the end of that step.
            same = np.isin(other, threads_of(long).get(name, ()))
            until = np.flatnonzero(same & (column(long.step) <= short.step[int(own[-1])]))
            last[name] = int(until.max(initial=-1))
    later = np.zeros(len(long), np.bool_)
    for name, numbers in threads_of(long).items():
        if name[0] == file.process:
            # Other threads run beside the main one, which was ended.
            after = max(last[main], last.get(name, -1))
            later |= np.isin(other, numbers) & (places > after)
    return later
