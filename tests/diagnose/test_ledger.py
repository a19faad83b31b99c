"""The first draw that one run made and the other did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from repro_audit.diagnose import ledger
from repro_audit.diagnose.ledger import first_draw_apart
from repro_audit.diagnose.origin import compare
from repro_audit.trace import Trace


def draws(*lines: int, step: int = 0, name: str = "random.random") -> list[tuple[Any, ...]]:
    """Draws at these lines of a program."""
    return [
        (f"draw:{name}", None, {"kind": "rng", "phase": "rng", "code": f"a.py:{n}", "step": step})
        for n in lines
    ]


ROW = draws(7, 7, 7, 7)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_one_too_many(run: Callable[..., Trace], swapped: bool) -> None:
    one = run([*ROW, *draws(9, 7, 7, 7, 7, step=1), ("sin", 1, {"step": 1})])
    other = run([*ROW, *draws(7, 7, 7, 7, step=1), ("sin", 1, {"step": 1})])
    origin = first_draw_apart(*((other, one) if swapped else (one, other)))
    assert origin is not None
    assert (origin.call_site, origin.key.step, origin.kind) == ("a.py:9", 1, "structural")
    assert (origin.key.op, origin.key.phase) == ("draw:random.random", "rng")
    # The ledger itself is no divergence.
    assert compare(one, other)[0] is None


def test_made_by_one_run_now_and_by_the_other_later(run: Callable[..., Trace]) -> None:
    one = run([*draws(9, 7, 7, step=0), *draws(7, 7, step=1), ("sin", 1)])
    other = run([*draws(7, 7, step=0), *draws(9, 7, 7, step=1), ("sin", 1)])
    origin = first_draw_apart(one, other)
    assert origin is not None
    assert (origin.call_site, origin.key.step) == ("a.py:9", 0)


def test_more_draws_at_the_end(run: Callable[..., Trace]) -> None:
    origin = first_draw_apart(run([*ROW, ("sin", 1)]), run([*ROW, *draws(8), ("sin", 1)]))
    assert origin is not None
    assert origin.call_site == "a.py:8"


def test_another_function_at_the_same_line(run: Callable[..., Trace]) -> None:
    other = run([*ROW, *draws(7, name="numpy.random.rand"), ("sin", 1)])
    origin = first_draw_apart(run([*ROW, *draws(7), ("sin", 1)]), other)
    assert origin is not None
    assert origin.other_op == "draw:numpy.random.rand"


def test_alike(run: Callable[..., Trace]) -> None:
    assert first_draw_apart(run([*ROW, ("sin", 1)]), run([*ROW, ("cos", 1)])) is None


def test_whether_anything_was_drawn(run: Callable[..., Trace]) -> None:
    assert ledger.draws(run([*ROW, ("sin", 1)]))
    assert not ledger.draws(run([("rng:python", 1), ("sin", 1)]))
