"""Compares recordings that were made before, here or elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit.unobserved import unseen_in
from repro_audit.diagnose import manifests
from repro_audit.diagnose.align import align
from repro_audit.diagnose.causes import classify
from repro_audit.diagnose.configuration import configured
from repro_audit.diagnose.drift import drift, gaps_between
from repro_audit.diagnose.ends import as_far_as_all_came, ended_early
from repro_audit.diagnose.origin import Divergence, between_devices
from repro_audit.diagnose.overview import overview
from repro_audit.diagnose.runs import SAME_PROGRAM, compare_runs
from repro_audit.diagnose.start import draws_compare, start_of
from repro_audit.errors import InconclusiveError, UsageError
from repro_audit.model import (
    Audit,
    Drift,
    Origin,
    Overview,
    RunInfo,
    Start,
    Tolerance,
    Verdict,
    Warn,
)
from repro_audit.trace import Trace

_REST = "record it to its end to compare the rest"


def compare_traces(paths: Sequence[Path], tolerance: Tolerance | None = None) -> Audit:
    """Compare traces: identical, divergent, or of different programs. Imports no torch.

    Where they differ, how far they drift apart is measured by what they kept of their tensors;
    differences within `tolerance`, where one is asked for, are no divergence. Raises TraceError for
    a file that is no whole trace, InconclusiveError for recordings at two levels and where a
    tolerance needs what was not recorded, UsageError for fewer than two.
    """
    if len(paths) < 2:
        raise UsageError("compare needs two recordings: repro-audit compare A.audit B.audit")
    with contextlib.ExitStack() as opened:
        traces = _open(paths, opened)
        runs = tuple(
            RunInfo(str(path), str(path), {**trace.manifest, "steps": trace.steps})
            for path, trace in zip(paths, traces, strict=True)
        )
        return compared(runs, traces, tolerance or Tolerance())


def _open(paths: Sequence[Path], opened: contextlib.ExitStack) -> list[Trace]:
    """Read the traces next to each other: most of that is done without Python's lock."""

    def read(path: Path) -> Trace:
        trace = opened.enter_context(contextlib.closing(Trace.open(path)))
        _ = trace.signatures
        return trace

    with ThreadPoolExecutor() as pool:
        reading = [pool.submit(read, path) for path in paths]
    return [trace.result() for trace in reading]


@dataclass(frozen=True, slots=True)
class _Apart:
    """What is said of two recordings that differ."""

    start: Start
    drift: Drift | None
    overview: Overview
    origin: Origin | None
    reason: str | None


def compared(
    runs: Sequence[RunInfo],
    traces: Sequence[Trace],
    tolerance: Tolerance,
    *,
    but: Container[str] = (),
) -> Audit:
    """The audit of recorded runs, whose traces these are; fields of manifests in `but` may differ.

    What others did after one of them was ended is left out.
    """
    levels = [str(trace.plan.get("level", "ops")) for trace in traces]
    unlike = next((at for at, level in enumerate(levels) if level != levels[0]), None)
    if unlike is not None:
        raise InconclusiveError(
            f"{runs[0].name} was recorded at level {levels[0]} and {runs[unlike].name} at level "
            f"{levels[unlike]}, which see other events. Record both at the same --level."
        )
    silent = [run for run, trace in zip(runs, traces, strict=True) if not trace.reductions()]
    if tolerance.rounding and silent:
        raise InconclusiveError(
            f"{silent[0].name} does not tell how many numbers its ops add up, as --rounding needs "
            "to know. Record it with --level ops, and not with --capture none."
        )
    whole = traces
    traces, ends = as_far_as_all_came(whole)
    apart = any(between_devices(traces[0], trace) for trace in traces[1:])
    draws = all(draws_compare(traces[0], trace) for trace in traces[1:])
    outcomes = compare_runs(traces, values_only=apart, draws=draws)
    # Those that went on may part where others had ended.
    longer = [trace for at, trace in enumerate(whole) if at not in ends]
    if outcomes.divergence is None and ends and len(longer) > 1:
        later = compare_runs(longer, values_only=apart, draws=draws)
        outcomes = outcomes if later.divergence is None else later
    verdict: Verdict = "identical"
    reason = None
    ended = " and ".join(f"{runs[at].name} {ended.said}" for at, ended in ends.items())
    if outcomes.counts.compared == 0:
        reason = "the recordings hold no event with a fingerprint"
        verdict, reason = "inconclusive", f"{ended}, before all that compares" if ends else reason
    elif outcomes.aligned < SAME_PROGRAM and not (apart or _same_source(traces)):
        verdict = "different-program"
        reason = f"only {outcomes.aligned:.0%} of their events have a counterpart"
    elif outcomes.divergence is not None:
        verdict = "divergent"
    elif ends:
        agree = f"all {outcomes.counts.compared:,} events until there agree"
        verdict, reason = "inconclusive", f"{ended}: {agree}; {_REST}"
    divergence = outcomes.divergence if verdict == "divergent" else None
    differences = manifests.differences(
        {run.name: trace.manifest for run, trace in zip(runs, traces, strict=True)}, but=but
    )
    audit = Audit(
        command="compare",
        target=" ".join(run.name for run in runs),
        mode=str(traces[0].plan.get("mode", "")),
        verdict=verdict,
        engine=engine.name(),
        runs=tuple(runs),
        events=outcomes.counts,
        observed=outcomes.observed,
        warnings=tuple(of_recordings(runs, whole, ends)),
        manifest_differences=differences,
        unseen=unseen_in(traces[0]),
        reason=reason,
    )
    if divergence is None:
        if verdict != "identical":
            return audit
        one, other = traces[:2]
        seen = overview(
            one,
            other,
            align(one, other),
            (runs[0].name, runs[1].name),
            values_only=apart,
            draws=draws,
        )
        return replace(audit, overview=seen)
    by_trace = {
        id(trace): run.name
        for known in (whole, traces)
        for run, trace in zip(runs, known, strict=True)
    }
    names = by_trace[id(divergence.a)], by_trace[id(divergence.b)]
    found = _apart(divergence, names, draws, tolerance, values_only=apart)
    origin = found.origin
    if origin is not None and found.drift is not None and tolerance.asked:
        structural = origin.kind == "structural" or outcomes.counts.unaligned
        unmeasured = found.drift.differing > found.drift.measured
        if not (structural or unmeasured or found.drift.beyond or len(traces) > 2):
            verdict = "inconclusive" if ends else "within-tolerance"
            reason = f"{ended}: until there all is within the tolerance; {_REST}" if ends else None
    return replace(
        audit,
        verdict=verdict,
        origin=origin,
        cause=configured(classify(divergence, None), differences) if origin is not None else None,
        sightings=outcomes.sightings if origin is not None else (),
        start=found.start,
        drift=found.drift,
        overview=found.overview,
        reason=found.reason or reason,
    )


def _apart(
    divergence: Divergence,
    names: tuple[str, str],
    draws: bool,
    tolerance: Tolerance,
    *,
    values_only: bool,
) -> _Apart:
    a, b, origin = divergence.a, divergence.b, divergence.origin
    # Its place in the run, among the events of all processes.
    at = divergence.i if divergence.i is not None else divergence.j
    alignment = align(a, b)
    start, first = start_of(a, b, alignment)
    gaps = gaps_between(a, b, alignment, tolerance=tolerance, draws=draws)
    measured = drift(a, b, alignment, gaps, names, tolerance)
    seen = overview(a, b, alignment, names, gaps.measured, values_only=values_only, draws=draws)
    if draws or first is None or at is None or first > at:
        return _Apart(start, measured, seen, origin, None)
    # What follows from another start is nobody's origin.
    return _Apart(start, measured, seen, None, "the runs did not start equal")


def of_recordings(
    runs: Sequence[RunInfo], traces: Sequence[Trace], ends: Collection[int] = ()
) -> Iterator[Warn]:
    """What to know of runs that were recorded, or took from recordings.

    `ends` are the places of those that were ended before others were.
    """
    for at, (run, trace) in enumerate(zip(runs, traces, strict=True)):
        closing = trace.closing
        ended = ended_early(trace)
        # Where all make as many steps as were asked for they are whole.
        if ended is not None and (at in ends or closing.get("outcome") != "stopped"):
            yield Warn("RA108", f"{run.name} {ended.said}")
        if closing.get("math_attention"):
            said = "computed attention by the math backend, where dropout can be given to it"
            yield Warn("RA112", f"{run.name} {said}")
        not_given = [closing_.get("not_given", {}) for closing_ in _closings(trace)]
        for what in ("weights", "inputs", "draws"):
            missing = sum(counts.get(what, 0) for counts in not_given)
            if missing:
                said = f"made {missing} of its {what} itself: the recording has none alike"
                yield Warn("RA113", f"{run.name} {said}")


def _closings(trace: Trace) -> list[dict[str, Any]]:
    return [file.closing for file in trace.files]


def _same_source(traces: Sequence[Trace]) -> bool:
    """True if all were recorded from the same file, byte by byte: then a path differs."""
    sources = {trace.manifest.get("target", {}).get("sha256") for trace in traces}
    return len(sources) == 1 and None not in sources
