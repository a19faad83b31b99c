"""A Python process that the audited program started, made a part of the run."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_audit.replicate.lineage import member_from
from repro_audit.replicate.plan import plan_from_json
from repro_audit.replicate.run import Run


def begin(values: Mapping[str, Any]) -> None:
    """Arm the run's controls and capture in this process; `values` are its `Member`'s.

    Its end is Python's: what the program registered to be called then comes before. If anything
    fails the run fails.
    """
    member = member_from(values)
    plan = plan_from_json(json.loads(Path(member.plan).read_text(encoding="utf-8")))
    run = Run(plan, member)
    try:
        run.arrive()
        run.prepare()
        atexit.register(_ended, run)
    except Exception as error:
        run.end(error)


def _ended(run: Run) -> None:
    try:
        run.finish("ended", None, None)
    except Exception as error:
        run.end(error)
