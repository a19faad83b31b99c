"""Word from a run's process that what ended it was not the program's doing."""

from __future__ import annotations

import json
from pathlib import Path

from repro_audit.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_USAGE,
    InconclusiveError,
    ReproAuditError,
    TraceError,
    UsageError,
)
from repro_audit.model import Plan

_ERRORS = {EXIT_INCONCLUSIVE: InconclusiveError, EXIT_USAGE: UsageError}


def leave(plan: Plan, error: BaseException, code: int) -> bool:
    """Say in a file beside the plan why the run ends; `code` is its process's exit code.

    False where it cannot be written: what is printed then has to do.
    """
    if isinstance(error, ReproAuditError):
        text = str(error)
    else:
        log = Path(plan.progress).with_suffix(".err")
        text = f"{type(error).__name__}: {error}\nthe traceback is in {log}; please report it"
    try:
        _place(plan).write_text(json.dumps({"code": code, "error": text}), encoding="utf-8")
    except OSError:
        return False
    return True


def removed(plan: Plan, trace: Path) -> TraceError:
    """What to raise where a trace of a run has gone."""
    return TraceError(
        f"{trace} was removed while {plan.run} ran. Run it again, and let the file be."
    )


def found(plan: Plan) -> ReproAuditError | None:
    """The error that the run's process left word of, or None: then it was the program's."""
    try:
        word = json.loads(_place(plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _ERRORS.get(word["code"], ReproAuditError)(word["error"])


def _place(plan: Plan) -> Path:
    return Path(plan.progress).with_suffix(".error.json")
