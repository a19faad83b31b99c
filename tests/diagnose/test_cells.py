"""Fabricated runs under different conditions: rows of two batches, what graphs have in common."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from repro_audit.diagnose.cells import difference, drawn_before, draws_forward, rows

RANDOM = 2
Array = npt.NDArray[np.float32]


def kept(name: str, values: Array, module: str = "net", **columns: Any) -> tuple[Any, ...]:
    """An event of one output that is kept whole."""
    data = np.ascontiguousarray(values).tobytes()
    whole = {"keep": data} if columns.pop("whole", True) else {}
    return name, zlib.crc32(data), {"module": module, "shape": values.shape, **whole, **columns}


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def outside(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1])


def inside(values: Array) -> Array:
    return outside(values.transpose(1, 0, 2))


def between(values: Array) -> Array:
    return values.reshape(-1, 3, 2, 4).transpose(2, 0, 1, 3).reshape(-1, 4)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("rows", lambda x: x),
        ("a leading one", lambda x: x[None]),
        ("the middle", lambda x: x.transpose(1, 0, 2)),
        ("the end", lambda x: x.transpose(1, 2, 0)),
        ("batch outside positions", outside),
        ("batch inside positions", inside),
        ("batch between heads and positions", between),
        ("heads within the batch", lambda x: x.reshape(-1, x.shape[1], 2, 4).transpose(0, 2, 1, 3)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_same_rows_are_the_same_wherever_the_batch_is(run, name, of, turned) -> None:
    few, many = (kept("mul", of(numbers(8, 3, 8)[:n])) for n in (2, 8))
    a, b = run([few]), run([many])
    found = rows(b, a, (8, 2)) if turned else rows(a, b, (2, 8))
    counts = found.counts
    assert (counts.compared, counts.identical, counts.incomparable) == (1, 1, 0), name
    assert (found.differs, found.origin, found.largest) == (False, None, None)


@pytest.mark.parametrize("of", [outside, inside, between])
def test_one_row_that_is_off_is_found_in_either_order(run, of) -> None:
    values = numbers(8, 3, 8)
    off = values.copy()
    off[1, 2, 3] *= 1 + 2.0**-20
    few = run([kept("add", numbers(2, 3)), kept("mul", of(values[:2]), "up", code="m.py:3")])
    many = run([kept("add", numbers(2, 3)), kept("mul", of(off), "up", code="m.py:3")])
    found = rows(few, many, (2, 8))
    assert found.differs is True
    assert found.origin is not None
    assert (found.origin.key.module, found.origin.key.op, found.origin.kind) == (
        "up",
        "aten.mul.default",
        "value",
    )
    assert found.origin.call_site == "m.py:3"
    assert found.largest is not None
    deviation = found.largest.deviation
    # Taken in the other order, nearly every element would differ.
    assert (deviation.compared, deviation.differing) == (48, 1)
    assert deviation.rms < 1e-6
    assert (found.counts.identical, found.counts.divergent) == (1, 1)


def test_what_mixes_rows_is_not_compared_nor_what_was_not_kept(run) -> None:
    values = numbers(8, 4)

    def events(n: int) -> list[tuple[Any, ...]]:
        cut = values[:n]
        return [
            kept("mul", cut),
            kept("mean", cut.mean(keepdims=True)[0]),  # of all rows, in one number
            kept("mm", cut @ cut.T),  # each row with each
            kept("nonzero", cut[: n - 1]),  # as many as there happen to be
            kept("sort", cut[:, :2], dtype="float31"),  # no dtype whose elements are known
            kept("addmm", cut * n, phase="backward"),
            kept("addmm", cut * n, step=1),
            *([kept("exp", cut)] if n == 8 else []),
        ]

    found = rows(run(events(2)), run(events(8)), (2, 8))
    counts = found.counts
    assert (counts.compared, counts.identical, counts.incomparable, counts.unaligned) == (
        1,
        1,
        4,
        1,
    )
    assert found.differs is False


def test_rows_that_were_not_kept_are_no_agreement(run) -> None:
    values = numbers(8, 4)

    def events(n: int, off: float = 0.0) -> list[tuple[Any, ...]]:
        cut = values[:n]
        return [
            kept("mul", cut),
            kept("relu", cut + n, whole=False),
            kept("exp", cut[:, :0], whole=False),  # of no elements, of which there is nothing
            kept("neg", cut + off),
        ]

    found = rows(run(events(2)), run(events(8)), (2, 8))
    assert (found.differs, found.counts.incomparable) == (None, 1)
    assert found.reason is not None
    assert found.reason.startswith("the rows of 1 event were too large to be kept")
    # What differs all the same has been seen to.
    assert rows(run(events(2)), run(events(8, off=1.0)), (2, 8)).differs is True


def test_inputs_that_agree_are_no_evidence(run) -> None:
    values = numbers(8, 4)

    def events(n: int, *more: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        cut = values[:n]
        return [
            ("param:weight", 7, {"name": "weight"}),
            kept("clone", cut),  # by which the inputs are made
            kept("inputs:Net", cut, kind="batch"),
            kept("bernoulli", cut, flags=RANDOM),
            kept("arange", values[0]),  # of no batch at all
            kept("mm", cut.T @ cut),
            *more,
        ]

    found = rows(run(events(2)), run(events(8)), (2, 8))
    assert (found.differs, found.evidence) == (None, 0)
    assert found.counts.identical == 4
    few, many = (run(events(n, kept("mul", values[:n]))) for n in (2, 8))
    assert (rows(few, many, (2, 8)).differs, rows(few, many, (2, 8)).evidence) == (False, 1)
    # A graph of whose results nothing is known, such as those in an object of an own class.
    start = graph()[:2]
    for way in ("boundaries", "values", "computed"):
        assert difference(run(start), run(start), way).differs is None
        assert difference(run(graph()), run(graph()), way).differs is False
    # Batches are what a hash seed may change, but not where they were given.
    assert difference(run(start), run(start), "events").differs is False
    given = run(start, plan={"given": [{"what": "inputs", "trace": "start.sqlite"}]})
    assert difference(run(start), given, "events").differs is None


def test_nothing_comparable_is_no_agreement(run) -> None:
    found = rows(run([kept("mean", numbers(1))]), run([kept("mean", numbers(1, seed=1))]), (2, 8))
    assert (found.differs, found.counts.incomparable) == (None, 1)


def test_random_numbers_are_said_to_be_what_differs_first(run) -> None:
    values, others = numbers(8, 4), numbers(8, 4, seed=1)
    few = run([kept("bernoulli", values[:2], flags=RANDOM), kept("mul", values[:2])])
    many = run([kept("bernoulli", others, flags=RANDOM), kept("mul", others)])
    assert rows(few, many, (2, 8)).drawn
    assert not rows(run([kept("mul", values[:2])]), run([kept("mul", others)]), (2, 8)).drawn


def test_draws_before_a_model_has_its_inputs_are_none_of_its_own(run) -> None:
    drawn = kept("randn", numbers(2, 2), flags=RANDOM)
    fed = ("inputs:Net", 1, {"kind": "batch"})
    assert not draws_forward(run([drawn, fed, kept("mul", numbers(2, 2))]))
    assert draws_forward(run([fed, drawn]))


def test_draws_in_a_dimension_that_the_batch_shares_are_said_to_be(run) -> None:
    values = numbers(8, 3, 4)

    def events(n: int, *, off: float = 0.0) -> list[tuple[Any, ...]]:
        mask = outside(values[:n])
        drawn = kept("bernoulli", mask, flags=RANDOM)
        # The draws of a batch inside, of which the first were given.
        return [kept("neg", values[:n] + off), drawn, kept("mul", inside(values[:n]) * mask)]

    few, many = run(events(2)), run(events(8))
    found = rows(few, many, (2, 8))
    assert (found.drawn, found.mixed, found.differs) == (False, True, True)
    before = rows(few, run(events(8, off=1.0)), (2, 8))
    assert (before.differs, before.mixed) == (True, False)
    own = [kept("bernoulli", values[:n], flags=RANDOM) for n in (2, 8)]
    few, many = (run([draw, kept("mul", values + at)]) for at, draw in enumerate(own))
    assert not rows(few, many, (2, 8)).mixed


def test_what_ends_before_a_number_is_drawn_does_not_come_of_it(run) -> None:
    drawing = run(
        [
            ("inputs:Net", 1, {"kind": "batch"}),
            ("mul", 1, {"module": "up"}),
            ("bernoulli_", 1, {"module": "drop", "flags": RANDOM}),
            ("mul", 2, {"module": "down.0"}),
        ]
    )

    def differs_in(module: str, **columns: Any) -> Any:
        pair = [run([("module:forward", n, {"module": module, **columns})]) for n in (1, 2)]
        origin = difference(*pair, "boundaries").origin
        assert origin is not None
        return origin

    assert not drawn_before(drawing, differs_in("up"))
    for module in ("drop", "down", "", "unknown"):
        assert drawn_before(drawing, differs_in(module)), module
    assert drawn_before(drawing, differs_in("up", phase="backward"))
    assert not drawn_before(run([("mul", 1)]), differs_in("down"))


def graph(*parts: str, output: int = 1, weights: int = 7) -> list[tuple[Any, ...]]:
    """What a run has at the level of modules: of a compiled one the root alone gives something."""
    return [
        ("param:weight", weights, {"module": "up", "name": "weight"}),
        ("inputs:Net", weights, {"kind": "batch"}),
        *(("module:forward", 10 + n, {"kind": "module", "module": m}) for n, m in enumerate(parts)),
        ("module:forward", output, {"kind": "module"}),
    ]


def test_graphs_are_compared_by_what_they_have_in_common(run) -> None:
    eager, compiled = run(graph("up", "down")), run(graph())
    found = difference(eager, compiled, "boundaries")
    assert (found.differs, found.counts.compared, found.counts.unaligned) == (False, 3, 2)
    other = difference(eager, run(graph(output=2)), "boundaries")
    assert other.origin is not None
    assert (other.origin.kind, other.origin.key.op) == ("value", "module:forward")
    # As events of one program the same two differ in structure.
    plain = difference(eager, compiled, "events")
    assert plain.origin is not None
    assert plain.origin.kind == "structural"


def test_what_was_rounded_before_anything_was_computed_is_left_out(run) -> None:
    one, other = run(graph("up")), run(graph("up", output=2, weights=8))
    found = difference(one, other, "computed")
    assert (found.counts.incomparable, found.counts.divergent) == (2, 1)
    assert found.origin is not None
    assert found.origin.key.op == "module:forward"
    same = difference(one, run(graph("up", weights=8)), "computed")
    assert same.differs is False


def test_how_much_is_told_by_gradients_only_where_nothing_else_differs(run) -> None:
    def events(forward: float, backward: float) -> list[tuple[Any, ...]]:
        return [
            ("mul", zlib.crc32(str(forward).encode()), {"sample": [forward] * 4}),
            (
                "sum",
                zlib.crc32(str(backward).encode()),
                {"sample": [backward] * 4, "phase": "backward"},
            ),
        ]

    one = run(events(1.0, 1e-9))
    both = difference(one, run(events(1.0 + 2.0**-20, -1e-9)), "events")
    assert both.largest is not None
    assert both.largest.key.phase == "forward"
    assert both.largest.deviation.rms == pytest.approx(2.0**-20, rel=1e-3)
    gradients = difference(one, run(events(1.0, -1e-9)), "events")
    assert gradients.largest is not None
    assert gradients.largest.deviation.rms == pytest.approx(2.0)
