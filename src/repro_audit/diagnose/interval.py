"""The interval in which a divergence of modules came about: where to look at operators."""

from __future__ import annotations

from repro_audit.diagnose.origin import Divergence
from repro_audit.model import Interval
from repro_audit.trace import Trace
from repro_audit.trace.schema import KINDS

_PARAM, _RNG = KINDS.index("param"), KINDS.index("rng")


def interval_of(divergence: Divergence) -> Interval | None:
    """From the last event before the first difference, in its thread, to that event.

    All events before agree. Parameters are read one after the other when a step has ended: before a
    parameter comes what came before them all. None where a seeding call is the origin: what feeds
    it is no operator.
    """
    if divergence.origin.key.phase == "rng":
        return None
    trace, at = _place(divergence)
    passed = {_RNG, _PARAM} if trace.kind[at] == _PARAM else {_RNG}
    before = at - 1
    while before >= 0 and (
        trace.thread[before] != trace.thread[at] or trace.kind[before] in passed
    ):
        before -= 1
    return Interval(trace.key(before) if before >= 0 else None, trace.key(at))


def _place(divergence: Divergence) -> tuple[Trace, int]:
    if divergence.i is not None:
        return divergence.a, divergence.i
    assert divergence.j is not None
    return divergence.b, divergence.j
