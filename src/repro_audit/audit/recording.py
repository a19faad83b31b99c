"""One run's trace, to carry away: from the command line, or around a training loop."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Session
from repro_audit.errors import UsageError
from repro_audit.model import RunInfo


def record_run(request: AuditRequest, output: Path, *, force: bool, progress: Progress) -> RunInfo:
    """Run the target once, its output passing through, and leave its trace at `output`.

    The file appears only once the trace is whole; one that was there stays until then. Raises
    UsageError where `output` exists and `force` is not given, else as the run does.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists; --force overwrites it")
    partial = output.with_name(f"{output.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="repro-audit-") as folder:
            session = Session(replace(request, runs=1), Path(folder), progress, echo=True)
            finished = session.observed("run-1", trace=str(partial.resolve()))
        finished.trace.close()
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(f"{partial.name}-journal").unlink(missing_ok=True)
    steps = finished.trace.closing["steps"]
    return replace(
        finished.info, trace=str(output), manifest={**finished.info.manifest, "steps": steps}
    )
