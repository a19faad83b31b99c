"""The straight and the resumed run once more, up to where they part: what the origin was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro_audit.audit.session import Finished, Session
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.diagnose.unrestored import made_by
from repro_audit.diagnose.zoomed import Zoomed, look_at
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Origin, SiteKey, Target, Warn
from repro_audit.replicate.isolate import Turns
from repro_audit.trace import Trace

_NOTHING_SAID = "so nothing is said of resuming"


@dataclass(frozen=True, slots=True)
class Both:
    """The two runs, the parts of them that were compared, and the step that these begin at.

    `again` is what the resumed run runs; `outside` is a file beyond its directory that it read.
    """

    straight: Finished
    resumed: Finished
    a: Trace
    b: Trace
    step: int
    again: Target
    outside: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What two further runs say of a divergence; `reason` is why it says nothing of resuming.

    `made` says what had made the value that the straight run has there.
    """

    origin: Origin
    zoomed: Zoomed | None = None
    made: str | None = None
    warnings: tuple[Warn, ...] = ()
    reason: str | None = None


def look_closer(session: Session, turns: Turns, both: Both, divergence: Divergence) -> Told:
    """Run both again up to the origin: do they repeat themselves, and what was the origin given?

    A run that read a file outside its directory is not run again: that file is not what it was.
    """
    if both.outside is not None:
        said = f"runs have overwritten {both.outside} since, which lies outside the directory"
        return _unseen(divergence, f"was not looked at closer: {said}")
    try:
        return _again(session, turns, both, divergence)
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        return _unseen(divergence, f"looking closer did not end well: {error.in_a_line}")


def _unseen(divergence: Divergence, said: str) -> Told:
    return Told(divergence.origin, warnings=(Warn("RA105", said),))


def _again(session: Session, turns: Turns, both: Both, divergence: Divergence) -> Told:
    origin, steps = divergence.origin, session.request.steps
    i, j = divergence.i, divergence.j
    last = origin.key.step + 1
    session.workspace = turns.fresh()
    mine = None if i is None else both.a.whole_key(i)
    until = last if steps is None else min(steps, last)
    one = session.observed("straight-again", "tensors", **_closer(mine, until))
    session.workspace = turns.again()
    other = None if j is None else both.b.whole_key(j)
    closer = _closer(other, last - both.step)
    two = session.observed("resumed-again", "tensors", target=both.again, **closer)
    pairs = ((both.straight, one, mine, last), (both.resumed, two, other, last - both.step))
    for before, again, key, upto in pairs:
        if _varies(before.trace, again.trace, key, upto):
            said = f"the {before.info.name} run does not repeat itself before the runs part"
            way_out = f"`repro-audit run {session.request.target.label}` says why"
            return Told(origin, reason=f"{said}, {_NOTHING_SAID}; {way_out}")
    if mine is None or other is None or origin.kind == "structural":
        return Told(origin)
    x, y = one.trace.find(mine), two.trace.find(other)
    if x is None or y is None:
        return Told(origin)
    seen = look_at(one.trace, x, two.trace, y)
    if not seen.differs:
        return Told(origin)
    refined = seen.told_of(origin, (one.info.name, two.info.name))
    return Told(refined, seen, made_by(one.trace, x, two.trace, y))


def _closer(key: SiteKey | None, steps: int) -> dict[str, Any]:
    return {"beginnings": True, "capture": () if key is None else (key,), "steps": steps}


def _varies(before: Trace, again: Trace, key: SiteKey | None, steps: int) -> bool:
    """True if two runs alike part before the event of that name, or at it."""
    found, _, _ = compare(before.until(steps), again.until(steps))
    if found is None:
        return False
    at = None if key is None else found.a.find(key)
    return at is None or found.i is None or found.i <= at
