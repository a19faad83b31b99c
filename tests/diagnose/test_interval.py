"""Where to look at operators: from the end of the step before to the first event that differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repro_audit.diagnose.interval import interval_of
from repro_audit.diagnose.origin import compare
from repro_audit.model import Interval, SiteKey
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def interval(a: Trace, b: Trace) -> Interval | None:
    divergence, _, _ = compare(a, b)
    assert divergence is not None
    return interval_of(divergence)


def module(name: str, **columns: Any) -> tuple[str, dict[str, Any]]:
    return f"module:{columns.pop('op', 'forward')}", {"kind": "module", "module": name, **columns}


def events(run: Run, plan: list[tuple[tuple[str, dict[str, Any]], int]]) -> Trace:
    return run([(op, value, columns) for (op, columns), value in plan])


def weight(name: str, **columns: Any) -> tuple[str, dict[str, Any]]:
    return "param:weight", {"kind": "param", "module": name, "phase": "weights", **columns}


def test_from_the_end_of_the_step_before(run: Run) -> None:
    # What `b` gave came around `a`, which agrees.
    before, gone = (module("a"), 1), (("rng:torch", {"kind": "rng"}), 1)
    a, b = (
        events(run, [before, gone, (module("a", step=1), 1), (module("b", step=1), n)])
        for n in (1, 2)
    )
    assert interval(a, b) == Interval(
        SiteKey(0, "forward", "a", "module:forward", 0),
        SiteKey(1, "forward", "b", "module:forward", 0),
    )


def test_from_the_begin(run: Run) -> None:
    a, b = (events(run, [(module("x"), 1), (module("a"), n)]) for n in (1, 2))
    found = interval(a, b)
    assert found is not None
    assert found.after is None


def test_a_parameter_from_where_it_was_read_before(run: Run) -> None:
    # A buffer that no step reads: nothing tells in which of them it was changed.
    a, b = (
        events(
            run,
            [
                (weight("b"), 1),
                (weight("a"), 1),
                (module("a", step=1), 1),
                (weight("a", step=1), 1),
                (module("a", step=2), 1),
                (weight("b", step=2), n),
            ],
        )
        for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after == SiteKey(0, "weights", "b", "param:weight", 0)
    assert found.until.op == "param:weight"


def test_a_parameter_from_the_step_before(run: Run) -> None:
    a, b = (
        events(
            run,
            [
                (weight("a"), 1),
                (module("a"), 1),
                (module("a", step=1), 1),
                (weight("a", step=1), n),
            ],
        )
        for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after == SiteKey(0, "weights", "a", "param:weight", 0)


def test_a_parameter_that_was_never_read_from_the_begin(run: Run) -> None:
    a, b = (
        events(run, [(module("a"), 1), (weight("a", step=1), 1), (weight("b", step=1), n)])
        for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after is None


def test_a_thread_of_its_own(run: Run) -> None:
    a, b = (
        events(
            run,
            [
                (module("a", thread="1"), 1),
                (module("x"), 1),
                (module("b", thread="1", step=1), n),
            ],
        )
        for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after == SiteKey(0, "forward", "a", "module:forward", 0, "1")


def test_what_only_the_second_run_has(run: Run) -> None:
    a = events(run, [(module("a"), 1), (module("c", step=1), 1)])
    b = events(run, [(module("a"), 1), (module("b", step=1), 1), (module("c", step=1), 1)])
    found = interval(a, b)
    assert found is not None
    assert (found.after and found.after.module, found.until.module) == ("a", "b")


def test_a_seeding_call_has_none(run: Run) -> None:
    a, b = (
        run([("seed:numpy.random.seed", n), ("DataLoader", n, {"kind": "batch"})]) for n in (1, 2)
    )
    assert interval(a, b) is None
