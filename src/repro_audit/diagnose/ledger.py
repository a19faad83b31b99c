"""The ledger of draws: the first that one run made from a global generator, and the other not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from repro_audit.diagnose.align import threads_of
from repro_audit.diagnose.origin import located
from repro_audit.model import Origin
from repro_audit.model.codes import KIND_RNG
from repro_audit.trace import Trace

DRAW = "draw:"
# Draws after the first difference by which it is told which run drew more.
_WINDOW = 500

_Draw = tuple[str, str | None, str | None]


def draws(trace: Trace) -> bool:
    """True if a run that kept the ledger drew from a generator in it."""
    return any(op.startswith(DRAW) for _, op in trace.sites.values())


def first_draw_apart(a: Trace, b: Trace) -> Origin | None:
    """The first draw of one run that the other, which drew the same before, did not make.

    Draws are the same by function and call site. None where both runs drew alike throughout.
    """
    found: list[tuple[int, Origin]] = []
    all_a, all_b = threads_of(a), threads_of(b)
    for thread in sorted({*all_a, *all_b}):
        mine, other = (_draws(a, all_a.get(thread, ())), _draws(b, all_b.get(thread, ())))
        x, y = [draw for _, draw in mine], [draw for _, draw in other]
        k = next((k for k, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), None)
        if k is None:
            if len(x) == len(y):
                continue
            k = min(len(x), len(y))
        # Within the step, since the next has the same draws again.
        step = min(
            run.step[draws[k][0]] for run, draws in ((a, mine), (b, other)) if k < len(draws)
        )
        rest_a = [draw for i, draw in mine[k : k + _WINDOW] if a.step[i] == step]
        rest_b = [draw for i, draw in other[k : k + _WINDOW] if b.step[i] == step]
        in_a = _more_in_first(rest_a, rest_b)
        trace, events, rest = (a, mine, y) if in_a else (b, other, x)
        event = trace.event(events[k][0])
        instead = rest[k][0] if k < len(rest) else None
        origin = replace(located(trace, event), kind="structural", other_op=instead)
        found.append((trace.place(event.index), origin))
    return min(found, key=lambda one: one[0])[1] if found else None


def _draws(trace: Trace, numbers: Sequence[int]) -> list[tuple[int, _Draw]]:
    found = []
    for i, kind in enumerate(trace.kind):
        if kind != KIND_RNG or trace.thread[i] not in numbers:
            continue
        op = trace.site_name(i)[1]
        if op.startswith(DRAW):
            event = trace.event(i)
            found.append((i, (op, event.call_site, event.called_from)))
    return found


def _more_in_first(x: Sequence[_Draw], y: Sequence[_Draw]) -> bool:
    """True if what the first does before it does as the second again is the shorter explanation."""
    if not x or not y:
        return bool(x)
    kind, begin, end, other_begin, other_end = next(
        code for code in SequenceMatcher(None, x, y, autojunk=False).get_opcodes()
    )
    return kind == "delete" or (kind == "replace" and end - begin >= other_end - other_begin)
