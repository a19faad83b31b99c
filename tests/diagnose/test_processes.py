"""Several processes: compared one by one, and the first difference is the first in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repro_audit.diagnose.causes import classify
from repro_audit.diagnose.origin import compare
from repro_audit.diagnose.runs import compare_runs
from repro_audit.model import Origin
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def at(op: str, value: int, process: str, time: int, **columns: Any) -> tuple[Any, ...]:
    return (op, value, {"process": process, "time": time, **columns})


def origin(a: Trace, b: Trace) -> Origin:
    found, _, _ = compare(a, b)
    assert found is not None
    return found.origin


def test_the_first_in_time_whichever_process_it_is_in(run: Run) -> None:
    """What another process received from it comes later, wherever that stands in its own trace."""

    def events(value: int) -> list[Any]:
        return [
            at("mm", 1, "1", 10),
            at("add", value, "1", 20),
            at("sum", value, "1", 40),
            at("mul", value, "", 30),
        ]

    found = origin(run(events(2)), run(events(3)))
    assert (found.key.process, found.key.op, found.event) == ("1", "aten.add.default", 1)
    assert found.rank == 1


def test_how_processes_interleave_is_no_difference(run: Run) -> None:
    a = run([at("mm", 1, "1", 10), at("add", 2, "2", 20), at("mul", 3, "", 30)])
    b = run([at("mm", 1, "1", 30), at("add", 2, "2", 10), at("mul", 3, "", 20)])
    assert compare(a, b)[0] is None
    assert compare_runs([a, b]).observed.distinct == 1


def test_the_same_in_two_processes_is_told_apart(run: Run) -> None:
    a = run([at("mm", 1, "1", 10), at("mm", 2, "2", 20)])
    b = run([at("mm", 2, "1", 10), at("mm", 1, "2", 20)])
    assert origin(a, b).key.process == "1"
    assert compare_runs([a, b]).observed.distinct == 2


def test_a_process_that_only_one_run_starts(run: Run) -> None:
    """What follows from it in the program's own process is not where it began."""
    own = [("mm", 1), at("add", 2, "", 5)]
    more = [at("exp", 3, "1", 10), at("sum", 9, "", 20)]
    less = [at("sum", 8, "", 20)]
    for a, b in ((own + more, own + less), (own + less, own + more)):
        found = origin(run(a), run(b))
        assert (found.kind, found.key.process, found.key.op) == (
            "structural",
            "1",
            "aten.exp.default",
        )
        assert found.other_op is None


def test_generators_are_each_processs_own(run: Run) -> None:
    """A seed that differed in one process is not why a draw did in another."""

    def events(seed: int, drawn: int) -> list[Any]:
        return [
            at("seed:torch.manual_seed", seed, "2", 10),
            at("rng:torch", seed, "2", 11),
            at("randn", drawn, "1", 20, flags=2),
            at("randn", 7, "2", 30, flags=2),
        ]

    a, b = run(events(1, 5)), run(events(2, 6))
    found, _, _ = compare(a, b)
    assert found is not None
    assert (found.origin.key.process, found.origin.key.op) == ("1", "aten.randn.default")
    assert found.states == ()
    assert classify(found, None).cls != "rng-drift"


def test_a_pools_tasks_may_be_done_by_any_of_its_processes(run: Run, tmp_path: Any) -> None:
    tasks = [at("mm", n, "1", 10 * n, thread=f"1.{n}") for n in range(1, 5)]
    a, b = run(tasks), run(tasks[::-1])
    assert compare(a, b)[0] is None
