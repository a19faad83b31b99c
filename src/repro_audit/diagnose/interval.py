"""The interval in which a divergence of modules came about: where to look at operators."""

from __future__ import annotations

from repro_audit.diagnose.origin import Divergence
from repro_audit.model import Interval
from repro_audit.model.codes import HELD, KIND_RNG
from repro_audit.trace import Trace


def interval_of(divergence: Divergence) -> Interval | None:
    """From the end of the step before, in its thread, to the first event that differs.

    That the events in between agree says little of what was computed between them: a way around a
    module passes it unseen, the gradients of a module's parameters are none of its outputs'.
    A parameter, buffer or state may differ since it was last read, which can be longer ago. None
    where a seeding call is the origin: what feeds it is no operator.
    """
    if divergence.origin.key.phase == "rng":
        return None
    trace, at = _place(divergence)
    before = at - 1
    while before >= 0 and not (
        trace.thread[before] == trace.thread[at]
        and trace.kind[before] != KIND_RNG
        and trace.step[before] < trace.step[at]
    ):
        before -= 1
    if trace.kind[at] in HELD:
        before = min(before, _last_read(trace, at))
    return Interval(trace.key(before) if before >= 0 else None, trace.key(at))


def _last_read(trace: Trace, at: int) -> int:
    """The event that read before what event `at` reads; -1 where none did."""
    before = at - 1
    while before >= 0 and (
        trace.thread[before] != trace.thread[at] or trace.site[before] != trace.site[at]
    ):
        before -= 1
    return before


def _place(divergence: Divergence) -> tuple[Trace, int]:
    if divergence.i is not None:
        return divergence.a, divergence.i
    assert divergence.j is not None
    return divergence.b, divergence.j
