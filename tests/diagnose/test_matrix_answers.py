"""What fabricated cells say of their axes, where cells or the baseline vary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest

from repro_audit.audit.matrix_answers import Comparisons, Sample
from repro_audit.model import Axis, AxisAnswer, Cell

Events = list[tuple[Any, ...]]
Compare = Callable[..., tuple[tuple[Cell, ...], tuple[AxisAnswer, ...]]]


@pytest.fixture
def compare(run) -> Compare:
    """Cells and answers of a grid: for each cell the events of its runs, the last axis fastest."""

    def made(axes: Sequence[Axis], *runs: Sequence[Events], levels: Sequence[str] = ()) -> Any:
        samples = []
        values = product(*(axis.values for axis in axes))
        for at, (setting, each) in enumerate(zip(values, runs, strict=True)):
            level = levels[at] if levels else "ops"
            settings = {axis.name: value for axis, value in zip(axes, setting, strict=True)}
            found = [
                SimpleNamespace(
                    trace=run(events, plan={"level": level}), info=SimpleNamespace(name=str(n))
                )
                for n, events in enumerate(each)
            ]
            sample = Sample(at, str(at), settings, {"level": level}, runs=cast(Any, found))
            # What it would be run once more for: nothing of it draws.
            sample.witnesses["draws"] = run([("mul", 1)])
            samples.append(sample)
        comparisons = Comparisons(cast(Any, None), samples, axes, grid=True)
        return comparisons.cells(), comparisons.answers()

    return made


THREADS, MKLDNN = Axis("threads", ("1", "2")), Axis("mkldnn", ("on", "off"))


def op(value: int, **columns: Any) -> Events:
    return [("mul", 1), ("add", value, columns)]


STEADY, VARYING, OTHER = [op(1), op(1)], [op(1), op(2)], [op(3), op(4)]


@pytest.mark.parametrize(
    ("cells", "threads", "mkldnn"),
    [
        # The last cell alone varies: each axis changes it, beside one that does not.
        ((STEADY, STEADY, STEADY, VARYING), True, True),
        # What varies on both sides of an axis says nothing of that.
        ((STEADY, VARYING, STEADY, VARYING), False, True),
        # A neighbour that varies, beside a cell that does not.
        ((STEADY, STEADY, VARYING, STEADY), True, True),
        ((STEADY, STEADY, STEADY, STEADY), False, False),
        ((VARYING, VARYING, VARYING, OTHER), None, None),
    ],
)
def test_a_cell_that_varies_beside_one_that_does_not(
    compare: Compare, cells, threads, mkldnn
) -> None:
    _, answers = compare((THREADS, MKLDNN), *cells)
    assert [answer.changes for answer in answers] == [threads, mkldnn]
    assert all(answer.origin is not None for answer in answers if answer.changes)


@pytest.mark.parametrize("axis", [Axis("dtype", ("a", "b")), Axis("compile", ("a", "b"))])
def test_a_graph_is_not_blamed_for_a_baseline_that_varies(compare: Compare, axis: Axis) -> None:
    # The baseline's own runs part at its third event, that of the modules is the first.
    gave = {"kind": "module"}
    own = [("module:forward", 1, gave)], [("module:forward", 2, gave)]
    baseline = [[("module:forward", n, {"kind": "module", "phase": "backward"})] for n in (1, 2)]
    cells, answers = compare(
        (axis,),
        [[*own[0], *baseline[0]], [*own[0], *baseline[1]]],
        [[*own[1], *baseline[0]], [*own[1], *baseline[0]]],
        levels=("modules", "modules"),
    )
    assert (cells[1].outcome, cells[1].reason) == ("varies", "as the baseline itself does")
    assert [answer.changes for answer in answers] == [None]
