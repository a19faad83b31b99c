"""From modules to operators: further runs that look at operators where modules first differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from repro_audit.audit.attempts import Attempts
from repro_audit.audit.session import Session
from repro_audit.diagnose.interval import interval_of
from repro_audit.diagnose.origin import Divergence
from repro_audit.model import Interval, Origin
from repro_audit.model.codes import KIND_OP


def narrow(
    session: Session,
    divergence: Divergence,
    refine: Callable[[Divergence, Origin], None],
    add: Callable[[Origin], None],
) -> Divergence:
    """The operator, inside the interval before the first module that differs, that differs first.

    From here on the session's pairs look at that interval, and end with its last step. Tells
    `refine` of the operator, and `add` of what other pairs diverged at. The divergence itself where
    no operator is to blame, or no pair shows one.
    """
    interval = interval_of(divergence)
    if interval is None:
        return divergence
    session.attend(interval)
    for attempt in Attempts(session, divergence, "interval", "interval"):
        found = attempt.found
        if found is None:
            continue
        if found.origin.key == divergence.origin.key:
            # What changed it is no operator of the interval.
            return divergence
        if _inside(found, interval):
            refine(divergence, found.origin)
            return replace(found, counts=divergence.counts)
        add(found.origin)
    return divergence


def _inside(found: Divergence, interval: Interval) -> bool:
    """True for an operator: modules are looked at everywhere, operators in the interval alone."""
    trace, at = (found.a, found.i) if found.i is not None else (found.b, found.j)
    assert at is not None
    key = trace.key(at)
    return trace.kind[at] == KIND_OP and (key.thread, key.process) == (
        interval.until.thread,
        interval.until.process,
    )
