"""Alignment: what is the same event, when programs insert, drop, repeat and reorder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_audit.diagnose.align import Alignment, align
from repro_audit.trace import Trace

Run = Callable[..., Trace]
PROPERTY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
LAYER = [("mm", 1), ("add", 2), ("relu", 3)]


def ops(trace: Trace, indices: list[int]) -> list[str]:
    return [trace.site_name(i)[1].split(".")[1] for i in indices]


def test_identical_runs_pair_in_place(run: Run) -> None:
    events = LAYER * 5
    found = align(run(events), run(events))
    assert found == Alignment([(i, i) for i in range(15)], [], [])


def test_values_do_not_matter(run: Run) -> None:
    found = align(run(LAYER), run([(op, 9, {"shape": (7, 7)}) for op, _ in LAYER]))
    assert found.pairs == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("place", [0, 1, 7, 14, 15])
def test_an_inserted_op_is_found_exactly(run: Run, place: int) -> None:
    events = LAYER * 5
    more = [*events[:place], ("dropout", 4), *events[place:]]
    found = align(run(events), run(more))
    assert (found.only_a, found.only_b) == ([], [place])
    found = align(run(more), run(events))
    assert (found.only_a, found.only_b) == ([place], [])


def test_a_removed_layer_among_equal_ones(run: Run) -> None:
    """Which of the equal layers is gone cannot be told; that it is one can."""
    a, b = run(LAYER * 12), run(LAYER * 11)
    found = align(a, b)
    assert len(found.pairs) == 33
    assert found.only_b == []
    assert sorted(ops(a, found.only_a)) == ["add", "mm", "relu"]


def test_layers_are_told_apart_by_their_modules(run: Run) -> None:
    def layers(numbers: list[int]) -> list[tuple[Any, ...]]:
        return [(op, v, {"module": f"h.{n}"}) for n in numbers for op, v in LAYER]

    a, b = run(layers([0, 1, 2, 3])), run(layers([0, 1, 3]))
    found = align(a, b)
    assert (found.only_a, found.only_b) == ([6, 7, 8], [])


def test_other_edits_before_and_after(run: Run) -> None:
    """Two edits far apart do not pull what lies between them off its place."""
    middle = [(f"op{n % 7}", n, {"step": n // 20}) for n in range(100)]
    a = run([("first", 0), *middle, ("last", 0, {"step": 9})])
    b = run([("other", 0), *middle, ("end", 0, {"step": 9})])
    found = align(a, b)
    assert found.pairs == [(i, i) for i in range(1, 101)]
    assert (found.only_a, found.only_b) == ([0, 101], [0, 101])


def test_a_missing_step(run: Run) -> None:
    steps = [(op, v, {"step": step}) for step in range(6) for op, v in LAYER]
    found = align(run(steps), run([event for event in steps if event[2]["step"] != 3]))
    assert (found.only_a, found.only_b) == ([9, 10, 11], [])


def test_a_different_order_of_the_same_ops(run: Run) -> None:
    a = run([("mm", 1), ("add", 2), ("relu", 3), ("sum", 4)])
    b = run([("mm", 1), ("relu", 3), ("add", 2), ("sum", 4)])
    found = align(a, b)
    assert len(found.pairs) == 3
    assert ops(a, found.only_a) == ops(b, found.only_b)
    assert {(0, 0), (3, 3)} < set(found.pairs)


@pytest.mark.parametrize(
    "other", [{"phase": "backward"}, {"step": 1}, {"module": "h"}, {"kind": "batch"}]
)
def test_what_makes_an_event_another_one(run: Run, other: dict[str, Any]) -> None:
    found = align(run([("mm", 1)]), run([("mm", 1, other)]))
    assert found == Alignment([], [0], [0])


def test_threads_are_aligned_each_for_itself(run: Run) -> None:
    """How threads interleave is not what the program does."""
    one = [("mm", 1, {"thread": ""}), ("add", 2, {"thread": ""})]
    two = [("relu", 3, {"thread": "1"}), ("sum", 4, {"thread": "1"})]
    a = run([one[0], two[0], one[1], two[1]])
    b = run([two[0], two[1], one[0], one[1]])
    found = align(a, b)
    assert sorted(found.pairs) == [(0, 2), (1, 0), (2, 3), (3, 1)]
    assert (found.only_a, found.only_b) == ([], [])


def test_a_thread_in_one_run_only(run: Run) -> None:
    a = run([("mm", 1), ("relu", 3, {"thread": "1"})])
    found = align(a, run([("mm", 1)]))
    assert found == Alignment([(0, 0)], [1], [])


def test_generator_events_stand_apart(run: Run) -> None:
    """They never move what the program computes, and are aligned on request."""
    a = run([("rng:torch", 1), ("mm", 1), ("rng:torch", 2)])
    b = run([("mm", 1), ("seed:random.seed", 0), ("rng:torch", 1), ("rng:torch", 2)])
    assert align(a, b) == Alignment([(1, 0)], [], [])
    assert align(a, b, rng=True) == Alignment([(0, 2), (2, 3)], [], [1])


@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0)])
def test_empty_runs(run: Run, sizes: tuple[int, int]) -> None:
    a, b = (run([("mm", 1)] * size) for size in sizes)
    assert align(a, b) == Alignment([], list(range(sizes[0])), list(range(sizes[1])))


def test_runs_with_nothing_in_common_end_soon(run: Run) -> None:
    """And so do those in reversed order, where every way of diffing has most to do."""
    events = [(f"op{n}", n) for n in range(2500)]
    a = run(events)
    assert len(align(a, run([(f"other{n}", n) for n in range(2500)])).pairs) == 0
    assert align(a, run(events[::-1])).pairs


EVENT = st.tuples(
    st.sampled_from(["mm", "add", "relu", "rng:torch"]),
    st.integers(0, 2),
    st.fixed_dictionaries({"step": st.integers(0, 1), "thread": st.sampled_from(["", "1"])}),
)


@PROPERTY
@given(left=st.lists(EVENT, max_size=40), right=st.lists(EVENT, max_size=40), rng=st.booleans())
def test_any_two_runs(run: Run, left: list[Any], right: list[Any], rng: bool) -> None:
    a, b = run(left), run(right)
    found = align(a, b, rng=rng)
    for thread in ("", "1"):
        pairs = [pair for pair in found.pairs if a.owner(pair[0]).name == thread]
        for (x, y), (after_x, after_y) in pairwise(pairs):
            assert x < after_x
            assert y < after_y
    for x, y in found.pairs:
        mine, other = a.key(x), b.key(y)
        assert (a.kind[x], mine.step, mine.phase, mine.module, mine.op, mine.thread) == (
            b.kind[y],
            other.step,
            other.phase,
            other.module,
            other.op,
            other.thread,
        )
    for trace, paired, only in (
        (a, [x for x, _ in found.pairs], found.only_a),
        (b, [y for _, y in found.pairs], found.only_b),
    ):
        asked = [i for i in range(len(trace)) if (trace.kind[i] == 3) == rng]
        assert sorted([*paired, *only]) == asked


@PROPERTY
@given(
    common=st.lists(EVENT, max_size=20),
    left=st.lists(EVENT, max_size=10),
    right=st.lists(EVENT, max_size=10),
)
def test_the_common_beginning_is_exact(
    run: Run, common: list[Any], left: list[Any], right: list[Any]
) -> None:
    one = [(op, v, {**c, "thread": ""}) for op, v, c in common if op != "rng:torch"]
    rest = [[(op, v, {**c, "thread": ""}) for op, v, c in side] for side in (left, right)]
    found = align(run(one + rest[0]), run(one + rest[1]))
    assert found.pairs[: len(one)] == [(i, i) for i in range(len(one))]


@PROPERTY
@given(left=st.lists(EVENT, max_size=30), right=st.lists(EVENT, max_size=30))
def test_either_run_may_come_first(run: Run, left: list[Any], right: list[Any]) -> None:
    a, b = run(left), run(right)
    one, other = align(a, b), align(b, a)
    assert bool(one.only_a or one.only_b) == bool(other.only_a or other.only_b)
