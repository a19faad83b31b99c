"""A drift of generators, looked at closer: which draw did only one of the runs make?"""

from __future__ import annotations

from dataclasses import replace

from repro_audit.audit.session import Session
from repro_audit.audit.zoom import Closer
from repro_audit.diagnose.generators import one_draw_more
from repro_audit.diagnose.ledger import draws, first_draw_apart
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Cause, Origin, Warn

# Pairs to try: whether a draw is made may be left to chance.
_ATTEMPTS = 4


def drawn_apart(session: Session, closer: Closer, cause: Cause) -> tuple[Closer, Cause]:
    """Where a generator drifted: the first draw that one run alone makes becomes the origin.

    Two runs, or a few more, keep a ledger of all draws from Python's and NumPy's generators;
    torch's are operators, of which one too many is the origin already.
    """
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            one, other = session.pair(f"draws-{attempt}", "draws", ledger=True)
            origin = first_draw_apart(one.trace, other.trace)
            if origin is None and not (draws(one.trace) or draws(other.trace)):
                break
            if origin is None:
                continue
            return _moved(closer, origin), one_draw_more()
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        said = error.in_a_line
        warning = Warn("RA105", f"looking at draws did not end well: {said}")
        return replace(closer, warnings=[*closer.warnings, warning]), cause
    return closer, cause


def _moved(closer: Closer, origin: Origin) -> Closer:
    """The same with the draw as origin of what was seen first at the tensor that it changed."""
    sightings = tuple(
        replace(one, origin=origin) if one.origin.key == closer.origin.key else one
        for one in closer.sightings
    )
    warnings = [warning for warning in closer.warnings if warning.code != "RA103"]
    return replace(closer, origin=origin, sightings=sightings, warnings=warnings, captured=None)
