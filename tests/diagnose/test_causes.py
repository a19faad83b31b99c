"""Causes: each class from the traces that show it, and `unknown` where they do not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from repro_audit.diagnose.causes import by_confirming, classify
from repro_audit.diagnose.generators import may_have_drifted
from repro_audit.diagnose.nondeterministic import chooses, why
from repro_audit.diagnose.origin import compare
from repro_audit.diagnose.zoomed import Zoomed
from repro_audit.model import Cause, CausedBy
from repro_audit.model.codes import OWN_GENERATOR, RANDOM, TAINTED
from repro_audit.trace import Trace

Run = Callable[..., Trace]
DRAW = {"flags": RANDOM}
BATCH = {"kind": "batch"}


def cause(a: Trace, b: Trace, zoomed: Zoomed | None = None) -> Cause:
    divergence, _, _ = compare(a, b)
    assert divergence is not None
    found = classify(divergence, zoomed)
    assert found.confidence == "likely"
    assert found.evidence
    assert found.remedies
    assert all(len(line) <= 100 and "\n" not in line for line in (*found.evidence, *found.remedies))
    return found


def test_an_op_known_to_vary(run: Run) -> None:
    events = [("index", 1), ("aten.index_put_.default", 1, {"phase": "backward"})]
    found = cause(run(events), run([events[0], (events[1][0], 2, {"phase": "backward"})]))
    assert found.cls == "nondeterministic-op"
    assert "accumulate=True" in found.evidence[0]
    assert found.remedies == ("--deterministic",)
    assert found.source == "torch docs"


def test_its_inputs_differed_already(run: Run) -> None:
    """The op may be known to vary, but this time it was given something else."""
    a, b = run([("index_put", 1)]), run([("index_put", 2)])
    assert cause(a, b, Zoomed(True, True)).cls == "nondeterministic-op"
    assert cause(a, b, Zoomed(True, None)).cls == "nondeterministic-op"
    assert cause(a, b, Zoomed(True, False)).cls == "unknown"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_table_knows_the_device(run: Run, device: str) -> None:
    columns = {"device": device}
    found = cause(run([("scatter_add", 1, columns)]), run([("scatter_add", 2, columns)]))
    assert found.cls == ("unknown" if device == "cpu" else "nondeterministic-op")


def test_an_op_seen_to_vary(run: Run) -> None:
    """Whatever it is called: the same inputs, another output, and no draw."""
    a, b = run([("mm", 1)]), run([("mm", 2)])
    assert cause(a, b, Zoomed(True, True)).cls == "nondeterministic-op"
    assert cause(a, b, Zoomed(True, None)).cls == "unknown"


def test_memory_read_before_written(run: Run) -> None:
    tainted = {"flags": TAINTED}
    found = cause(run([("add", 1, tainted)]), run([("add", 2, tainted)]))
    assert found.cls == "uninitialized-memory"
    assert found.evidence[0].startswith("it reads memory")
    # A parameter reads nothing.
    found = cause(run([("param:bias", 1, tainted)]), run([("param:bias", 2, tainted)]))
    assert found.cls == "uninitialized-memory"
    assert found.evidence[0].startswith("it is memory")


def test_a_draw_after_another_seed(run: Run) -> None:
    a, b = (
        run([("rng:torch", n), ("dropout", n, DRAW)], manifest={"torch": {"initial_seed": n}})
        for n in (3, 4)
    )
    found = cause(a, b)
    assert found.cls == "config-difference"
    assert "seeded with 3 before, and with 4" in found.evidence[0]
    a, b = (
        run([("rng:torch", n), ("dropout", n, DRAW)], manifest={"torch": {"initial_seed": n << 40}})
        for n in (3, 4)
    )
    assert cause(a, b).cls == "unseeded-rng"


def test_a_draw_without_a_seed(run: Run) -> None:
    a = run([("rng:torch", 1), ("dropout", 1, DRAW)])
    b = run([("rng:torch", 2), ("dropout", 2, DRAW)])
    found = cause(a, b)
    assert found.cls == "unseeded-rng"
    assert "not seeded" in found.evidence[0]
    assert "torch.manual_seed(0)" in found.remedies[0]


def test_a_draw_on_a_device_is_its_own_generators(run: Run) -> None:
    draw = {**DRAW, "device": "cuda:0"}
    states = ("rng:torch", "rng:torch.cuda:0")
    for differing, cls in zip(states, ("unknown", "unseeded-rng"), strict=True):
        a, b = (
            run([*((op, n if op == differing else 1) for op in states), ("dropout", n, draw)])
            for n in (1, 2)
        )
        assert cause(a, b).cls == cls


def test_a_draw_from_a_generator_of_its_own(run: Run) -> None:
    runs = (run([("aten.normal_.default", n, {"flags": RANDOM | OWN_GENERATOR})]) for n in (1, 2))
    assert cause(*runs).cls == "unseeded-rng"


@pytest.mark.parametrize(
    ("line", "process", "cls"),
    [("t.py:4", "", "rng-drift"), ("t.py:5", "", "unseeded-rng"), ("t.py:4", "1", "unseeded-rng")],
)
def test_a_generator_that_gave_the_same_before_was_seeded_alike(
    run: Run, line: str, process: str, cls: str
) -> None:
    own = {"flags": RANDOM | OWN_GENERATOR}
    before = ("aten.rand.generator", 7, {**own, "code": line, "process": process, "time": 1})
    runs = (
        run([before, ("aten.rand.generator", n, {**own, "code": "t.py:4", "time": 2})])
        for n in (1, 2)
    )
    assert cause(*runs).cls == cls


@pytest.mark.parametrize(
    ("call", "fed"),
    [
        ("torch.manual_seed", ("dropout", 1, DRAW)),
        ("random.seed", ("DataLoader", 1, BATCH)),
        ("numpy.random.seed", ("DataLoader", 1, BATCH)),
    ],
)
def test_another_seed(run: Run, call: str, fed: tuple) -> None:
    op, _, *options = fed
    a = run([(f"seed:{call}", 1), (op, 1, *options)])
    b = run([(f"seed:{call}", 2), (op, 2, *options)])
    found = cause(a, b)
    assert found.cls == "unseeded-rng"
    assert call in found.evidence[0]


def test_a_draw_of_torchs_is_not_blamed_on_another_generators_seed(run: Run) -> None:
    a = run([("seed:random.seed", 1), ("rng:torch", 1), ("dropout", 1, DRAW)])
    b = run([("seed:random.seed", 2), ("rng:torch", 2), ("dropout", 2, DRAW)])
    assert "not seeded before this draw" in cause(a, b).evidence[0]


def test_a_seed_in_one_run_only(run: Run) -> None:
    a = run([("seed:torch.manual_seed", 1), ("dropout", 1, DRAW)])
    found = cause(a, run([("dropout", 2, DRAW)]))
    assert found.cls == "unseeded-rng"
    assert "only one of the runs" in found.evidence[0]


def test_a_generator_that_drifted(run: Run) -> None:
    def events(state: int) -> list[Any]:
        return [
            ("seed:torch.manual_seed", 0),
            ("rng:torch", 1),
            ("dropout", 1, DRAW),
            ("rng:torch", state, {"step": 4}),
            ("dropout", state, {**DRAW, "step": 4}),
        ]

    found = cause(run(events(1)), run(events(2)))
    assert found.cls == "rng-drift"
    assert "step 4" in found.evidence[0]


def test_a_generator_that_drifted_within_a_step(run: Run) -> None:
    """No state was recorded since the seed; the zoom has that of the draw itself."""
    a, b = (run([("seed:torch.manual_seed", 0), ("normal_", n, DRAW)]) for n in (1, 2))
    found = cause(a, b, Zoomed(True, True, generators_identical=False))
    assert found.cls == "rng-drift"
    assert "when it was drawn from here" in found.evidence[0]


def test_a_draw_of_the_same_numbers_that_came_out_different(run: Run) -> None:
    a, b = (run([("normal_", n, DRAW)]) for n in (1, 2))
    found = cause(a, b, Zoomed(True, True, generators_identical=True))
    assert found.cls == "nondeterministic-op"
    assert "its generator was in the same state" in found.evidence[0]
    assert cause(a, b, Zoomed(True, True)).cls == "unknown"


def test_data_that_came_in_different(run: Run) -> None:
    found = cause(run([("DataLoader", 1, BATCH)]), run([("DataLoader", 2, BATCH)]))
    assert found.cls == "data-order"


def test_rows_that_a_loader_stacks_are_data(run: Run) -> None:
    data = {"phase": "data"}
    a, b = (run([("stack", n, data)]) for n in (1, 2))
    for zoomed in (None, Zoomed(True, False)):
        assert cause(a, b, zoomed).evidence == (
            "the data already differed when it was put together",
        )
    assert cause(a, b, Zoomed(True, True)).cls == "nondeterministic-op"
    # And what one run has here the other has elsewhere.
    a, b = (
        run([("stack", n, {**data, "shape": (4,)}), ("cat", 3 - n, {**data, "shape": (4,)})])
        for n in (1, 2)
    )
    assert cause(a, b).evidence == ("the other run has the same data elsewhere",)


@pytest.mark.parametrize(
    ("manifests", "lines", "told"),
    [
        (("x", "x"), ("t.py:7", "t.py:19"), True),
        (("x", "x"), ("t.py:7", "t.py:7"), False),
        # Edited between the runs, another file, unknown.
        (("x", "y"), ("t.py:7", "t.py:19"), False),
        (("x", "x"), ("other.py:7", "other.py:19"), False),
        ((None, None), ("t.py:7", "t.py:19"), False),
        (("x", "x"), ("t.py:7", None), False),
    ],
)
def test_the_same_op_of_another_line(run: Run, manifests: Any, lines: Any, told: bool) -> None:
    a, b = (
        run(
            [("randperm", n, {**DRAW, "code": line})],
            manifest={"target": {"sha256": source, "label": "t.py"}},
        )
        for n, source, line in zip((1, 2), manifests, lines, strict=True)
    )
    evidence = cause(a, b).evidence[0]
    said = "the runs took different paths: t.py:7 in one, t.py:19 in the other"
    assert (evidence == said) is told


def test_another_size_is_no_order(run: Run) -> None:
    a, b = (run([("DataLoader", n, {**BATCH, "shape": (n, 4)})]) for n in (9, 13))
    found = cause(a, b)
    assert found.cls == "unknown"
    assert found.evidence == ("it is float32[9, 4] in one run and float32[13, 4] in the other",)


def test_what_a_confirming_run_changed_is_the_likely_cause(run: Run) -> None:
    def found(events: Callable[[int], list[Any]], **more: Any) -> Cause:
        a, b = run(events(1)), run(events(2), **more)
        divergence, _, _ = compare(a, b)
        assert divergence is not None
        return by_confirming(divergence, classify(divergence, None))

    held = found(lambda n: [("param:weight", n)])
    assert held.cls == "data-order"
    assert "another hash seed" in held.evidence[0]
    assert any("--explain" in remedy for remedy in held.remedies)
    # A number of an unseeded generator of Python's or NumPy's may be an op's argument.
    unseeded = found(
        lambda n: [("rng:numpy", n), ("full", n), ("rng:numpy", n + 5, {"step": 1})],
    )
    assert unseeded.cls == "unseeded-rng"
    # What is known stays.
    assert found(lambda n: [("add", n, {"flags": TAINTED})]).cls == "uninitialized-memory"
    assert found(lambda n: [("param:weight", n)], stale=["data.npy"]).cls == "unknown"


def test_what_both_runs_had_is_taken_in_another_order(run: Run) -> None:
    a, b = run([("add", 1)]), run([("add", 2)])
    assert cause(a, b, Zoomed(True, False, exchanged=1)).cls == "data-order"
    assert cause(a, b, Zoomed(True, False)).cls == "unknown"


def test_some_rows_of_a_batch_are_no_order(run: Run) -> None:
    a, b = (run([("DataLoader", n, BATCH)]) for n in (1, 2))
    found = cause(a, b, Zoomed(True, None, in_place=(7, 8)))
    assert found.cls == "unknown"
    assert found.evidence == ("1 of 8 rows came in otherwise, the others are in place",)
    for in_place in ((3, 8), (1, 2), (0, 0)):
        assert cause(a, b, Zoomed(True, None, in_place=in_place)).cls == "data-order"


def test_a_number_that_comes_in_is_no_order(run: Run) -> None:
    given = {**BATCH, "dtype": "python", "shape": ()}
    found = cause(*(run([("inputs:Net", n, given)]) for n in (1, 2)))
    assert found.cls == "unknown"
    assert "no tensor" in found.evidence[0]


def test_the_same_data_in_another_order(run: Run) -> None:
    a = run([("DataLoader", n, BATCH) for n in (1, 2, 3)])
    b = run([("DataLoader", n, BATCH) for n in (2, 1, 3)])
    found = cause(a, b)
    assert found.cls == "data-order"
    assert "the same 3" in found.evidence[0]
    assert "another order" in found.evidence[0]


def test_the_same_rows_in_another_order(run: Run) -> None:
    a, b = run([("DataLoader", 1, BATCH)]), run([("DataLoader", 2, BATCH)])
    found = cause(a, b, Zoomed(True, None, reordered=1024))
    assert found.cls == "data-order"
    assert "1,024 rows" in found.evidence[0]
    # What an op makes of the same inputs is no order of the data.
    assert cause(run([("mm", 1)]), run([("mm", 2)]), Zoomed(True, True, reordered=4)).cls == (
        "nondeterministic-op"
    )


@pytest.mark.parametrize("generator", ["numpy", "python"])
def test_data_shuffled_by_an_unseeded_generator(run: Run, generator: str) -> None:
    def events(start: int) -> list[Any]:
        return [
            (f"rng:{generator}", start),
            ("DataLoader", start, BATCH),
            (f"rng:{generator}", start + 1, {"step": 1}),
        ]

    assert cause(run(events(10)), run(events(20))).cls == "unseeded-rng"


def test_a_generator_of_the_programs_own_seeds_no_global_one(run: Run) -> None:
    def events(n: int) -> list[Any]:
        own = ("seed:numpy.random.default_rng", 5)
        drew = ("rng:numpy", n + 1, {"step": 1})
        return [("rng:numpy", n), own, ("DataLoader", n, BATCH), drew]

    assert cause(run(events(10)), run(events(20))).cls == "unseeded-rng"


def test_another_path_says_no_more(run: Run) -> None:
    found = cause(run([("mm", 1), ("relu", 2)]), run([("mm", 1), ("gelu", 2)]))
    assert found.cls == "unknown"


def test_another_path_that_begins_with_a_draw(run: Run) -> None:
    found = cause(run([("mm", 1), ("rand", 2, DRAW)]), run([("mm", 1)]))
    assert found.cls == "rng-drift"
    assert "one run draws here" in found.evidence[0]
    # One of the program's own shifts what is drawn from that.
    own = ("aten.rand.generator", 2, {"flags": RANDOM | OWN_GENERATOR})
    assert cause(run([("mm", 1), own]), run([("mm", 1)])).cls == "rng-drift"


def test_which_divergences_a_draw_too_many_may_be_behind(run: Run) -> None:
    def may(a: Trace, b: Trace, *whole: Trace) -> bool:
        divergence, _, _ = compare(a, b)
        assert divergence is not None
        return may_have_drifted(divergence, classify(divergence, None), whole)

    batches = [run([("DataLoader", n, BATCH)]) for n in (1, 2)]
    drew = run([("rng:numpy", 1), ("DataLoader", 1, BATCH), ("rng:numpy", 2, {"step": 1})])
    drew_not = run([("rng:numpy", 1), ("DataLoader", 1, BATCH), ("rng:numpy", 1, {"step": 1})])
    assert may(*batches, drew)
    assert not may(*batches, drew_not)
    # Cut off where they came apart, they do not say.
    assert may(*batches)
    ops = [run([("mm", n)]) for n in (1, 2)]
    assert not may(*ops, drew)
    # The draw too many is there already, but for one before it that chose the path.
    paths = run([("mm", 1), ("rand", 2, DRAW)]), run([("mm", 1)])
    assert not may(*paths, drew_not)
    assert may(*paths, drew)


def test_a_path_that_a_nondeterministic_op_is_on(run: Run) -> None:
    """That it is there at all is the divergence, not what it computed."""
    assert cause(run([("mm", 1), ("index_put", 2)]), run([("mm", 1)])).cls == "unknown"


def test_nothing_points_anywhere(run: Run) -> None:
    assert cause(run([("mm", 1)]), run([("mm", 2)])).cls == "unknown"


def test_inputs_that_differ_in_a_program_of_threads(run: Run) -> None:
    """The order in which finished tasks hand over what they computed is in no event."""

    def events(value: int) -> list[tuple]:
        return [("mm", 1, {"thread": "1"}), ("add_", value)]

    found = cause(run(events(2)), run(events(3)), Zoomed(True, False))
    assert found.cls == "unknown"
    assert "order in which threads' results are taken" in found.remedies[0]
    found = cause(run([("add_", 2)]), run([("add_", 3)]), Zoomed(True, False))
    assert ".numpy()" in found.remedies[0]


@pytest.mark.parametrize("kind", ["batch", "path"])
def test_files_that_an_earlier_run_left(run: Run, kind: str) -> None:
    def events(value: int) -> list[tuple]:
        if kind == "batch":
            return [("aten.set_.source_Storage", value, BATCH)]
        return [("mm", 1)] + [("rand", 2, DRAW)] * value

    a, b = run(events(1)), run(events(0), stale=["last.pt", "state.json"])
    found = cause(a, b)
    assert found.cls == "unknown"
    assert found.evidence == (
        f"{b.run} read last.pt and 1 more, which an earlier run had left or changed",
    )
    assert "--isolate" in found.remedies[0]
    compiled = run(events(0), stale=["/tmp/torchinductor_me/ab/cab.py"])
    assert "cab.py" not in cause(a, compiled).evidence[0]
    # What both found alike is no reason.
    same = run(events(1), stale=["last.pt"]), run(events(0), stale=["last.pt"])
    assert "last.pt" not in cause(*same).evidence[0]


def test_an_input_that_was_computed_before(run: Run) -> None:
    def events(value: int, dtype: str = "float32") -> list[tuple]:
        made = [("randn", n, {"dtype": dtype, "code": f"t.py:{n}"}) for n in (1, 2)]
        return [*made, ("inputs:Net", value, {**BATCH, "dtype": dtype})]

    found = cause(run(events(1)), run(events(2)))
    assert (found.cls, found.evidence) == (
        "data-order",
        ("both are values that the runs had before, taken in another order",),
    )
    a, b = run(events(9)), run(events(2))
    found = cause(a, b)
    assert (found.cls, found.evidence) == (
        "unknown",
        (f"{b.run} has what aten.randn at t.py:2 gave; the other run, something else",),
    )
    assert ".numpy()" in found.remedies[0]
    # Neither had it: it came from outside. And few integers may be alike by chance.
    assert "before any op" in cause(run(events(8)), run(events(9))).evidence[0]
    integers = (run(events(n, dtype="int64")) for n in (9, 2))
    assert "before any op" in cause(*integers).evidence[0]


def test_parameters_that_were_written_in_another_order(run: Run) -> None:
    def events(value: int, **columns: Any) -> list[tuple]:
        made = [("aten.copy_.default", n, {"code": "t.py:7", **columns}) for n in (1, 2)]
        return [*made, ("param:weight", value, {"code": "t.py:8", **columns})]

    a, b = run(events(1)), run(events(2))
    found = cause(a, b)
    assert (found.cls, found.evidence) == (
        "data-order",
        ("both are values that the runs had before, written in another order",),
    )
    divergence, _, _ = compare(a, b)
    assert divergence is not None
    assert divergence.origin.caused_by == CausedBy("aten.copy_.default", "", "t.py:7")
    # One that nothing in torch wrote; and few numbers may be alike by chance.
    assert cause(run(events(1)), run(events(9))).cls == "unknown"
    assert cause(*(run(events(n, shape=(2,))) for n in (1, 2))).cls == "unknown"


def test_events_without_digests_are_no_order(run: Run) -> None:
    """A step may hold events of the site that nothing was read from."""
    a = run([("mm", None), ("mm", 1), ("mm", 2)])
    b = run([("mm", None), ("mm", 2), ("mm", 2)])
    assert cause(a, b).cls == "unknown"
    a = run([("mm", None), ("mm", 1), ("mm", 2)])
    b = run([("mm", None), ("mm", 2), ("mm", 1)])
    assert cause(a, b).cls == "data-order"


@pytest.mark.parametrize(
    ("op", "device", "varies"),
    [
        ("aten.index_put_.default", "cpu", True),
        ("aten.index_put.default", "cpu", True),
        ("aten._index_put_impl_.default", "cpu", True),
        ("aten.put_.default", "cpu", True),
        ("aten.index_add_.default", "cpu", False),
        ("aten.scatter_add.default", "cpu", False),
        ("aten.index_add_.default", "cuda:1", True),
        ("aten.cumsum.default", "cuda:0", True),
        ("aten.mm.default", "cuda:0", False),
        ("aten.scatter_.src", "cuda:0", True),
        ("aten.scatter_.src", "cpu", False),
        ("mine.index_put.default", "cpu", False),
        ("param:weight", "cpu", False),
    ],
)
def test_known_ops(op: str, device: str, varies: bool) -> None:
    assert (why(op, device, None) is not None) is varies


def test_what_keeps_one_of_several_values_adds_nothing() -> None:
    for name in ("index_put_", "_index_put_impl_", "put_", "index_put"):
        op = f"aten.{name}.default"
        assert "accumulate=True" in str(why(op, "cpu", True))
        assert "adds" not in str(why(op, "cpu", False))
        assert chooses(op, False)
        assert not chooses(op, True)
        assert not chooses(op, None)
    assert chooses("aten.scatter_.src", None)
    assert not chooses("aten.scatter_add_.default", None)


def test_every_op_in_the_table_is_one_of_torchs() -> None:
    """A name that torch does not dispatch would never be found in a trace."""
    import torch

    from repro_audit.diagnose.nondeterministic import _CPU, _CUDA

    known = {
        name.partition("::")[2].split(".")[0] for name in torch._C._dispatch_get_all_op_names()
    }
    listed = {*_CPU, *_CUDA}
    assert {name for name in listed if not {name, f"{name}_"} & known} == set()


SEEN = Zoomed(True, None)


@pytest.mark.parametrize(
    ("one", "other", "dtype", "evidence"),
    [
        ((1, 2, 3), (2, 1, 4), "float32", "the other run has the same data elsewhere"),
        ((1, 2), (3, 4), "float32", "the data already differed when it came in, before any op"),
        # Zeros, masks and labels come again by chance.
        ((1, 2), (2, 3), "float32", "the data already differed when it came in, before any op"),
        ((1, 2, 3), (2, 1, 4), "int64", "the data already differed when it came in, before any op"),
        # One run alone takes more.
        ((1, 2), (1,), "float32", "the data already differed when it came in, before any op"),
    ],
)
def test_data_that_the_other_run_has_elsewhere(
    run: Run, one: tuple[int, ...], other: tuple[int, ...], dtype: str, evidence: str
) -> None:
    columns = {**BATCH, "shape": (8,), "dtype": dtype}
    runs = (run([("aten.lift_fresh.default", n, columns) for n in each]) for each in (one, other))
    found = cause(*runs, SEEN)
    assert found.evidence == (evidence,)


def test_a_number_that_python_made(run: Run) -> None:
    said = "argument 2 is 0.5 in zoom-1a and 0.25 in zoom-1b"
    zoomed = Zoomed(True, False, given=said)
    found = cause(run([("aten.add.Tensor", 1)]), run([("aten.add.Tensor", 2)]), zoomed)
    assert (found.cls, found.evidence) == ("unknown", (said,))
    # From a generator that has drawn, and in one run more often.
    drew = [("rng:python", 1), ("rng:python", 2, {"step": 1})]
    a = run([*drew, ("aten.add.Tensor", 1, {"step": 1})], plan={"mode": "controlled"})
    b = run(
        [drew[0], ("rng:python", 3, {"step": 1}), ("aten.add.Tensor", 2, {"step": 1})],
        plan={"mode": "controlled"},
    )
    assert cause(a, b, zoomed).cls == "rng-drift"
    # From one of the program's own, which had no fixed seed.
    a, b = (
        run([("seed:random.Random.seed", n, {"code": "t.py:4"}), ("aten.add.Tensor", n)])
        for n in (1, 2)
    )
    found = cause(a, b, zoomed)
    assert found.cls == "unknown"
    assert found.evidence[1].startswith("it may come from random.Random() at t.py:4, from another")
    assert found.remedies[0] == "give that generator a fixed seed"


def test_parameters_that_processes_share(run: Run) -> None:
    def events(value: int) -> list[tuple]:
        return [("mm", 1), ("param:weight", value, {"process": "1"})]

    found = cause(*(run(events(n), shared=True) for n in (1, 2)))
    assert found.cls == "parallelism"
    assert found.evidence[0].startswith("2 processes have parameters in memory")
    assert cause(*(run(events(n)) for n in (1, 2))).cls == "unknown"
    # One has nobody to share them with.
    alone = (run([("param:weight", n)], shared=True) for n in (1, 2))
    assert cause(*alone).cls == "unknown"


def test_one_run_collates_more_than_the_other(run: Run) -> None:
    """Batches that are fetched ahead, as for accumulated gradients: no data differ."""
    collated = ("aten.stack.default", 1, {"phase": "data"})
    a, b = run([collated, ("mm", 3)]), run([collated, (collated[0], 2, collated[2]), ("mm", 3)])
    for one, other in ((a, b), (b, a)):
        found = cause(one, other)
        assert found.cls == "unknown"
        assert found.evidence == ("one run puts more data together here than the other",)
