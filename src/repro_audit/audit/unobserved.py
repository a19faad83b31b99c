"""What an audit's runs leave unsaid: what was not observed, and what was only in part."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from repro_audit.audit.session import Finished
from repro_audit.diagnose.align import column
from repro_audit.diagnose.entered import COMPILED
from repro_audit.diagnose.replicas import replica_drift
from repro_audit.model import Unseen, Warn
from repro_audit.model.codes import KIND_OP, TAINTED
from repro_audit.trace import Trace, TraceFile

_NAMED = 4
_KINDS = (
    "views",
    "empty",
    "unwritten",
    "compiled",
    "cuda-graphs",
    "loader-workers",
    "native-threads",
)


def cut_short(runs: Sequence[Finished]) -> str | None:
    """Why runs that agree prove nothing: a process that nobody ended did not come to its end."""
    for run in runs:
        ended = run.processes.ended | run.processes.left
        for file in run.trace.files[1:]:
            if not file.closing and file.path.stem not in ended:
                return (
                    f"process {file.path.stem} of {run.info.name} was killed, or left from native "
                    "code, before its trace was whole"
                )
    return None


def warnings_of(runs: Sequence[Finished], *, printed_identical: bool | None) -> list[Warn]:
    """What to know beside the verdict."""
    found: list[Warn] = []
    stale = next((run for run in runs[1:] if run.trace.stale_reads), None)
    if stale is not None:
        found.append(Warn("RA101", _stale(stale)))
    if printed_identical is False:
        found.append(Warn("RA106", _printed(runs)))
    unobserved: Counter[str] = Counter()
    for file in runs[0].trace.files:
        unobserved.update(file.closing.get("unobserved", {}))
    for reason, times in sorted(unobserved.items()):
        found.append(Warn("RA102", f"not observed, {times:,} times: {reason}"))
    found += _drifted(runs[0].trace)
    unheard = max(run.processes.unheard for run in runs)
    if unheard:
        said = f"Python processes that the program started, not observed: {unheard:,}"
        found.append(Warn("RA107", said))
    # What came apart in lock-step ends there by design.
    whole = [run for run in runs if not run.apart]
    partly = sorted({name for run in whole for file in run.trace.files for name in _partly(file)})
    if partly:
        names = ", ".join(name or "the main thread" for name in partly[:_NAMED])
        more = f" and {len(partly) - _NAMED:,} more" if len(partly) > _NAMED else ""
        said = "did not come to their end, and were compared as far as all runs came"
        found.append(Warn("RA109", f"{said}: {names}{more}"))
    return found


def _drifted(trace: Trace) -> Iterator[Warn]:
    drift = replica_drift(trace)
    if drift is None:
        return
    names = ", ".join(drift.names[:_NAMED])
    more = f" and {len(drift.names) - _NAMED:,} more" if len(drift.names) > _NAMED else ""
    ranks = ", ".join(map(str, drift.ranks[:_NAMED]))
    others = f" and {len(drift.ranks) - _NAMED:,} more" if len(drift.ranks) > _NAMED else ""
    which = f"rank {ranks} has" if len(drift.ranks) == 1 else f"ranks {ranks}{others} have"
    yield Warn(
        "RA115",
        f"replica-drift: after step {drift.step} {which} another {names}{more}, which had been the "
        "same on all ranks; look at what one rank alone does there",
    )


def unseen_in(trace: Trace) -> tuple[Unseen, ...]:
    """What a run's trace holds without values, or not at all."""
    counts: Counter[str] = Counter()
    for file in trace.files:
        counts.update(file.closing.get("unseen", {}))
    readers = (column(trace.flags) & TAINTED != 0) & (column(trace.kind) == KIND_OP)
    counts["unwritten"] += int(np.count_nonzero(readers))
    return tuple(Unseen(kind, counts[kind]) for kind in _KINDS if counts[kind])


def _partly(file: TraceFile) -> Iterator[str]:
    """The threads of a process that had not ended when it did, or when it was ended."""
    for name, ended in file.threads.values():
        # The process of a pool waits for the next task until the pool ends it.
        if ended or (name.startswith("worker-") and "+" in file.path.stem):
            continue
        process = f"process {file.process}" if file.process else ""
        yield " ".join(part for part in (process, f"thread {name}" if name else "") if part)


def _stale(run: Finished) -> str:
    """What a run read that had changed since the audit began: a compiler's cache last."""
    paths = sorted(run.trace.stale_reads, key=lambda path: COMPILED in path)
    if COMPILED in paths[0]:
        return (
            f"{run.info.name} took compiled code from torch's cache, which an earlier run had put "
            "there; TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 has each compile its own"
        )
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"{run.info.name} read {paths[0]}{more}, changed since the audit began: the runs may not "
        "have started equal; --isolate gives each its own copy"
    )


def _printed(runs: Sequence[Finished]) -> str:
    """Where the first run and the first that printed something else part, and their logs."""
    other = next(run for run in runs if run.info.printed != runs[0].info.printed)
    logs = [Path(run.info.trace).with_suffix(".out") for run in (runs[0], other)]
    with logs[0].open("rb") as mine, logs[1].open("rb") as its:
        lines = enumerate(itertools.zip_longest(mine, its), 1)
        number = next((at for at, (one, another) in lines if one != another), None)
    where = "" if number is None else f", from line {number:,} on"
    return f"the runs printed different things{where}; compare {logs[0]} and {logs[1]}"
