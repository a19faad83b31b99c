"""Runs that were ended before others: how far all of them came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from repro_audit.diagnose.ends import as_far_as_all_came, ended_early
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def events(*steps: int, **columns: Any) -> list[tuple[Any, ...]]:
    """Two operators in each of these steps."""
    return [(op, step, {"step": step, **columns}) for step in steps for op in ("mm", "add")]


def compared(*traces: Trace) -> tuple[Divergence | None, int, Sequence[int]]:
    parts, ends = as_far_as_all_came(traces)
    found, counts, _ = compare(parts[0], parts[1])
    return found, counts.compared, list(ends)


def test_what_the_other_did_later_is_left_out(run: Run) -> None:
    long = run(events(0, 1, 2))
    # Ended in the middle of step 1, and at its end.
    for short, left in ((events(0, 1)[:-1], 3), (events(0, 1), 4)):
        ended = run(short, outcome="raised")
        assert compared(long, ended) == (None, left, [1])
        assert compared(ended, long) == (None, left, [0])


def test_a_run_that_was_through_is_not_cut(run: Run) -> None:
    found, count, ends = compared(run(events(0, 1, 2)), run(events(0, 1)))
    assert found is not None
    assert (count, ends) == (6, [])


def test_runs_that_were_ended_alike_are_whole(run: Run) -> None:
    a, b = (run(events(0, 1), outcome="stopped") for _ in "ab")
    assert compared(a, b) == (None, 4, [])
    parts, _ = as_far_as_all_came([a, b])
    assert parts == [a, b]


def test_another_path_at_the_end_is_one(run: Run) -> None:
    other = [*events(0, 1), ("sin", 1, {"step": 1})]
    found, _, ends = compared(run(events(0, 1, 2)), run(other, outcome="raised"))
    assert found is not None
    assert (found.origin.kind, found.origin.key.op) == ("structural", "aten.sin.default")
    assert ends == [1]


def test_threads_and_processes_that_went_on_are_left_out(run: Run) -> None:
    beside = [("sin", 7, {"thread": "1"})]
    later = [("cos", 8, {"thread": "1", "step": 2}), ("exp", 9, {"thread": "2", "step": 2})]
    long = run([*events(0), *beside, *events(1, 2), *later])
    short = run([*events(0), *beside, *events(1)], outcome="interrupted")
    assert compared(long, short) == (None, 5, [1])
    # What a thread did otherwise before that is a difference.
    less = run(events(0, 1), outcome="interrupted")
    found, _, _ = compared(long, less)
    assert found is not None
    assert found.origin.key.thread == "1"


def test_how_a_run_was_ended_is_told(run: Run) -> None:
    def said(outcome: str) -> str | None:
        ended = ended_early(run(events(0, 1), plan={"steps": 2}, outcome=outcome))
        return None if ended is None else ended.said

    assert said("finished") is None
    assert said("stopped") == "ends after step 1 (--steps 2)"
    assert said("raised") == "ends after step 1 (ValueError: no)"
    assert said("interrupted") == "ends after step 1 (it was interrupted)"
