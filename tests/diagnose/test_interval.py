"""Where to look at operators: from the last event that agrees to the first that does not."""

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


PARAMS = [(("param:weight", {"module": name}), 1) for name in ("a", "b")]


def test_between_two_modules(run: Run) -> None:
    a = events(run, [(module("a"), 1), (module("b"), 1), (module("c"), 1)])
    b = events(run, [(module("a"), 1), (module("b"), 2), (module("c"), 2)])
    assert interval(a, b) == Interval(
        SiteKey(0, "forward", "a", "module:forward", 0),
        SiteKey(0, "forward", "b", "module:forward", 0),
    )


def test_from_the_begin(run: Run) -> None:
    a, b = (events(run, [(("rng:torch", {}), 1), (module("a"), n)]) for n in (1, 2))
    found = interval(a, b)
    assert found is not None
    assert found.after is None


def test_a_parameter_came_about_before_all_of_them(run: Run) -> None:
    gradient = module("a", op="gradient", phase="backward")
    rest = [(("rng:torch", {}), 1), PARAMS[0]]
    a, b = (
        events(run, [(gradient, 1), *rest, (("param:weight", {"module": "b"}), n)]) for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after == SiteKey(0, "backward", "a", "module:gradient", 0)
    assert found.until.op == "param:weight"


def test_a_thread_of_its_own(run: Run) -> None:
    a, b = (
        events(
            run,
            [
                (module("a", thread="1"), 1),
                (module("x"), 1),
                (module("b", thread="1"), n),
            ],
        )
        for n in (1, 2)
    )
    found = interval(a, b)
    assert found is not None
    assert found.after == SiteKey(0, "forward", "a", "module:forward", 0, "1")


def test_what_only_the_second_run_has(run: Run) -> None:
    a = events(run, [(module("a"), 1), (module("c"), 1)])
    b = events(run, [(module("a"), 1), (module("b"), 1), (module("c"), 1)])
    found = interval(a, b)
    assert found is not None
    assert (found.after and found.after.module, found.until.module) == ("a", "b")


def test_a_seeding_call_has_none(run: Run) -> None:
    a, b = (
        run([("seed:numpy.random.seed", n), ("DataLoader", n, {"kind": "batch"})]) for n in (1, 2)
    )
    assert interval(a, b) is None
