"""Compares recordings that were made before, here or elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from repro_audit import engine
from repro_audit.audit.unobserved import unseen_in
from repro_audit.diagnose import manifests
from repro_audit.diagnose.causes import classify
from repro_audit.diagnose.configuration import configured
from repro_audit.diagnose.origin import between_devices
from repro_audit.diagnose.runs import compare_runs
from repro_audit.errors import UsageError
from repro_audit.model import Audit, RunInfo, Verdict, Warn
from repro_audit.trace import Trace

# With fewer events in common than this share, two recordings are of different programs.
_SAME_PROGRAM = 0.5


def compare_traces(paths: Sequence[Path]) -> Audit:
    """Compare traces: identical, divergent, or of different programs. Imports no torch.

    Raises TraceError for a file that is no whole trace, UsageError for fewer than two.
    """
    if len(paths) < 2:
        raise UsageError("compare needs two recordings: repro-audit compare A.audit B.audit")
    with contextlib.ExitStack() as opened:
        traces = [opened.enter_context(contextlib.closing(Trace.open(path))) for path in paths]
        return _compared(paths, traces)


def _same_source(traces: Sequence[Trace]) -> bool:
    """True if all were recorded from the same file, byte by byte: then a path differs."""
    sources = {trace.manifest.get("target", {}).get("sha256") for trace in traces}
    return len(sources) == 1 and None not in sources


def _compared(paths: Sequence[Path], traces: Sequence[Trace]) -> Audit:
    runs = tuple(
        RunInfo(
            name=str(path),
            trace=str(path),
            manifest={**trace.manifest, "steps": trace.steps},
        )
        for path, trace in zip(paths, traces, strict=True)
    )
    apart = any(between_devices(traces[0], trace) for trace in traces[1:])
    outcomes = compare_runs(traces, values_only=apart)
    verdict: Verdict = "identical"
    reason = None
    if outcomes.counts.compared == 0:
        verdict, reason = "inconclusive", "the recordings hold no event with a fingerprint"
    elif outcomes.aligned < _SAME_PROGRAM and not (apart or _same_source(traces)):
        verdict = "different-program"
        reason = f"only {outcomes.aligned:.0%} of their events have a counterpart"
    elif outcomes.divergence is not None:
        verdict = "divergent"
    divergence = outcomes.divergence if verdict == "divergent" else None
    differences = manifests.differences(
        {run.name: trace.manifest for run, trace in zip(runs, traces, strict=True)}
    )
    cause = None
    if divergence is not None:
        cause = configured(classify(divergence, None), differences)
    return Audit(
        command="compare",
        target=" ".join(str(path) for path in paths),
        mode=str(traces[0].plan.get("mode", "")),
        verdict=verdict,
        engine=engine.name(),
        runs=runs,
        events=outcomes.counts,
        observed=outcomes.observed,
        origin=None if divergence is None else divergence.origin,
        cause=cause,
        sightings=outcomes.sightings if divergence is not None else (),
        warnings=tuple(
            Warn("RA108", f"{path} ends early: {trace.closing.get('error')}")
            for path, trace in zip(paths, traces, strict=True)
            if trace.closing.get("outcome") == "raised"
        ),
        manifest_differences=differences,
        unseen=unseen_in(traces[0]),
        reason=reason,
    )
