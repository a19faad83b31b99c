"""Calls of a function, each recorded, and what comparing them says."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from repro_audit.audit.comparing import compared
from repro_audit.audit.recording import SAMPLES, Recording
from repro_audit.errors import UsageError
from repro_audit.model import Audit, Cause, Level, RunInfo, Tolerance
from repro_audit.trace import Trace

T = TypeVar("T")
# What calls the function, such as pytest, is not what is compared.
_AROUND = ("target.label", "target.sha256")

# Columns of a report in an error's message.
WIDTH = 100


def name_of(function: Callable[[], object]) -> str:
    """What a report calls a function."""
    return getattr(function, "__qualname__", type(function).__name__)


def called(function: Callable[[], T]) -> T:
    """What a function returns. Raises UsageError where that is only the promise of a call."""
    result = function()
    if inspect.isgenerator(result) or inspect.iscoroutine(result) or inspect.isasyncgen(result):
        raise UsageError("the function returned a generator or a coroutine: its body did not run")
    return result


def record_call(function: Callable[[], T], path: Path, level: Level, *, force: bool = False) -> T:
    """Call a function and leave the trace of it at `path`; what it returns.

    Raises UsageError where a recording is under way, and as `called` does.
    """
    recording = Recording(
        path,
        model=None,
        optimizer=None,
        level=level,
        samples=SAMPLES,
        budget=0,
        force=force,
        automatic=True,
    )
    with recording:
        return called(function)


def compared_calls(name: str, paths: Sequence[Path], tolerance: Tolerance | None = None) -> Audit:
    """The comparison of recordings, by the names of their files, as one of runs."""
    with contextlib.ExitStack() as opened:
        traces = [opened.enter_context(contextlib.closing(Trace.open(path))) for path in paths]
        runs = [
            RunInfo(path.name, path.name, {**trace.manifest, "steps": trace.steps})
            for path, trace in zip(paths, traces, strict=True)
        ]
        audit = compared(runs, traces, tolerance or Tolerance(), but=_AROUND)
    return replace(audit, command="check", target=name)


def in_turn(audit: Audit, evidence: str, remedy: str) -> Audit:
    """The comparison of calls in one process, where another cause is likelier than elsewhere."""
    if audit.cause is None or audit.cause.cls not in {"unknown", "data-order"}:
        return audit
    said = f"nothing recorded points at a cause; {evidence}"
    return replace(audit, cause=Cause("unknown", "likely", (said,), (remedy,)))
