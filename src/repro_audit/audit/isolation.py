"""The origin's call by itself: made again and again in a process of its own."""

from __future__ import annotations

from typing import Any

from repro_audit.audit.session import Finished, Session
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Replay, SiteKey, UlpDivergence

# Enough for an op that varies in 1 of 20 pairs of calls to be caught nine times in ten; a slow op
# is left after that many seconds.
TIMES, SECONDS = 100, 10.0


def isolated(
    session: Session, run: Finished, key: SiteKey, name: str, pins: tuple[str, ...] = ()
) -> Replay:
    """Replay the call of event `key` that `run` kept, with pins held."""
    plan = session.plan(
        name, trace=str(run.trace.path), capture=(key,), pins=pins, device=run.trace.plan["device"]
    )
    try:
        found = session.replay(plan, TIMES, SECONDS)
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        return Replay(problem=error.in_a_line)
    if "problem" in found:
        return Replay(problem=found["problem"])
    found["counts"] = tuple(found["counts"])
    found["between"] = _divergence(found["between"])
    found["exact"] = tuple(filter(None, map(_divergence, found["exact"])))
    return Replay(**found)


def _divergence(figures: dict[str, Any] | None) -> UlpDivergence | None:
    if figures is None:
        return None
    tuples: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in figures.items()
    }
    return UlpDivergence(**tuples)
