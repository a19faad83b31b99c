"""What the trace of a run says of itself at its end: what ran where, and how it ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.model import Plan
from repro_audit.replicate.lineage import Member

if TYPE_CHECKING:
    from repro_audit.capture import Recorder


def closing_of(recorder: Recorder | None, of_run: Mapping[str, Any]) -> dict[str, Any]:
    """The closing record: what the run knows of its end, and what its recorder counted.

    A run without a recorder has never imported torch.
    """
    if recorder is None:
        counted: dict[str, Any] = {"events": 0, "steps": 0, "step_seconds": None, "shared": False}
        counted |= {"unobserved": {}, "unseen": {}, "undrawn": [], "idle": [], "roots": []}
    else:
        counted = {
            "events": recorder.events,
            "steps": recorder.steps,
            "step_seconds": recorder.step_seconds,
            "shared": recorder.shared,
            "unobserved": dict(recorder.unobserved),
            "unseen": recorder.unseen,
            "undrawn": recorder.undrawn,
            "idle": recorder.idle,
            "roots": recorder.called_roots,
        }
    return {**counted, **of_run}


def manifest_of(plan: Plan, member: Member) -> Mapping[str, Any]:
    """What ran, on what, and how: all of it in the trace of the program's own process alone."""
    if member.name:
        return {"process": member.name, "worker": member.worker}
    from repro_audit import engine
    from repro_audit.control.manifest import collect

    with _where_it_began(member):
        return collect(plan, engine.info())


@contextlib.contextmanager
def _where_it_began(member: Member) -> Iterator[None]:
    """The working directory of the start, which the program may have left or removed."""
    # A descriptor leads back to a directory that has no name any more.
    left = os.open(".", os.O_RDONLY)
    try:
        os.chdir(member.bases[0])
        yield
    finally:
        os.fchdir(left)
        os.close(left)


def started_by(trace: Path) -> list[str]:
    """What the traces are called that the processes of the program have begun."""
    from repro_audit.trace import processes_of

    return [path.stem for path in processes_of(trace)]


def rank_now() -> int | None:
    """This process's rank in its process group, as torch or its launcher has it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    word = os.environ.get("RANK", "")
    return int(word) if word.isdigit() else None
