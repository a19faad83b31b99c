"""Two runs at a glance: what is added up is what was compared, and it has a bounded size."""

from __future__ import annotations

from typing import Any

import pytest

from repro_audit.diagnose.align import align
from repro_audit.diagnose.drift import gaps_between
from repro_audit.diagnose.origin import compare
from repro_audit.diagnose.overview import COLUMNS, ROWS, SITES, overview
from repro_audit.model import Overview, Tolerance

from .test_drift import event


def seen(run: Any, a: Any, b: Any, **switches: bool) -> Overview:
    """The overview, whose sums must be the counts that the comparison gives."""
    one, other = run(a), run(b)
    _, counts, _ = compare(one, other, **switches)
    alignment = align(one, other)
    gaps = gaps_between(one, other, alignment, tolerance=Tolerance())
    found = overview(one, other, alignment, ("a", "b"), gaps.measured, **switches)
    assert sum(site.events for site in found.sites) == counts.compared or found.omitted
    assert sum(map(sum, found.heat.compared)) == counts.compared
    assert sum(map(sum, found.heat.differing)) == counts.divergent
    return found


def steps(count: int, *, off: int | None = None, module: str = "h.0") -> list[tuple[Any, ...]]:
    """A module's op and the head's in each step; from step `off` on the head differs."""
    return [
        made
        for step in range(count)
        for made in (
            event("mm", 1.0, module, step=step),
            event("add", 1.0 + (off is not None and step >= off) * 2.0**-20, "head", step=step),
        )
    ]


def test_which_modules_differ_in_which_steps(run) -> None:
    found = seen(run, steps(4), steps(4, off=2))
    assert found.heat.modules == ("h.0", "head")
    assert found.heat.steps == (0, 1, 2, 3)
    assert found.heat.compared == ((1, 1, 1, 1), (1, 1, 1, 1))
    assert found.heat.differing == ((0, 0, 0, 0), (0, 0, 1, 1))
    assert found.heat.rms[0] == (None,) * 4
    assert found.heat.rms[1][:2] == (None, None)
    assert found.heat.rms[1][2] == pytest.approx(2.0**-20, rel=1e-3)


def test_rows_are_in_the_order_of_the_forward(run) -> None:
    made = [
        event("param:weight", 1.0, "head"),
        event("param:weight", 1.0, "unused"),
        event("param:weight", 1.0, "h.0"),
        event("mm", 1.0, "h.0"),
        event("mm", 1.0, "drop"),
        event("mm", 1.0, "head"),
        event("mm", 1.0, "h.0", phase="backward"),
    ]
    assert seen(run, made, made).heat.modules == ("unused", "h.0", "drop", "head")


def test_sites_in_the_order_of_their_first_difference(run) -> None:
    found = seen(run, steps(4), steps(4, off=2))
    head, other = found.sites
    assert (head.module, head.events, head.differing) == ("head", 4, 2)
    assert (head.first_step, head.first_event) == (2, 5)
    assert head.max_ulp == 8
    assert (other.module, other.events, other.differing) == ("h.0", 4, 0)
    assert (other.first_step, other.first_event, other.rms, other.max_ulp) == (None,) * 4


def test_processes_have_rows_of_their_own(run) -> None:
    def made(off: float) -> list[tuple[Any, ...]]:
        return [
            event("mm", 1.0, "h", time=1),
            event("mm", 1.0, "h", time=2, process="1"),
            event("mm", 1.0 + off, "h", time=3, process="1"),
            event("mm", 1.0, "h", time=4),
        ]

    first, second = seen(run, made(0.0), made(2.0**-20)).sites
    assert (first.process, first.events, first.differing, first.first_event) == ("1", 2, 1, 1)
    assert (second.process, second.events, second.differing) == ("", 2, 0)


def test_what_one_run_alone_does_differs(run) -> None:
    found = seen(run, [*steps(2), event("relu", 1.0, "extra")], [*steps(2), ("exp", 3)])
    assert [(site.op, site.differing) for site in found.sites[:2]] == [
        ("aten.relu.default", 1),
        ("aten.exp.default", 1),
    ]
    quiet = seen(
        run,
        [*steps(2), event("relu", 1.0, "extra")],
        [*steps(2), ("exp", 3)],
        values_only=True,
    )
    assert not any(site.differing for site in quiet.sites)
    assert quiet.heat.modules == ("h.0", "head")


def test_random_draws_that_do_not_compare_are_left_out(run) -> None:
    one, other = [("rand", 1, {"flags": 2}), ("mm", 2)], [("rand", 3, {"flags": 2}), ("mm", 2)]
    assert [site.op for site in seen(run, one, other, draws=False).sites] == ["aten.mm.default"]
    assert len(seen(run, one, other).sites) == 2


def test_what_has_no_digest_was_not_compared(run) -> None:
    found = seen(run, [("view", None), ("mm", 2)], [("view", None), ("mm", 2)])
    assert [site.op for site in found.sites] == ["aten.mm.default"]


def test_many_steps_share_columns_and_many_modules_rows(run) -> None:
    many = 3 * COLUMNS + 1
    deep = [event("mm", 1.0, f"h.{at % 20}.block.{at}", step=at % many) for at in range(500)]
    found = seen(run, deep, deep)
    assert len(found.heat.steps) <= COLUMNS
    assert found.heat.steps[:3] == (0, 4, 8)
    # h.N.block.M are 500, h.N.block are 20.
    assert len(found.heat.modules) == 20
    assert found.heat.modules[0] == "h.0.block"


@pytest.mark.parametrize("count", [ROWS + 5, 10 * ROWS])
def test_neighbours_share_a_row_where_names_cannot_be_cut(run, count: int) -> None:
    flat = [event("mm", 1.0, f"layer{at}") for at in range(count)]
    found = seen(run, flat, flat)
    assert len(found.heat.modules) <= ROWS
    assert found.heat.modules[0] == f"layer0 … layer{-(-count // ROWS) - 1}"
    assert found.heat.modules[-1].endswith(f"layer{count - 1}")


def test_a_deep_stack_is_not_cut_to_one_row(run) -> None:
    stack = [event("mm", 1.0, f"transformer.h.{at}") for at in range(96)]
    assert len(seen(run, stack, stack).heat.modules) == 48


def test_sites_past_the_limit_are_counted(run) -> None:
    a = [event("mm", 1.0, f"layer{at}") for at in range(SITES + 7)]
    b = [*a[:-1], event("mm", 1.5, f"layer{SITES + 6}")]
    found = seen(run, a, b)
    assert (len(found.sites), found.omitted) == (SITES, 7)
    # What differs is never among what is left out.
    assert found.sites[0].module == f"layer{SITES + 6}"
