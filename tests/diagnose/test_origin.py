"""The origin: the first event at which two runs part, and the call that made it so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.model import CausedBy, EventCounts, SiteKey, TensorSpec
from repro_audit.model.codes import RANDOM, RECOMPUTE
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def between(a: Trace, b: Trace) -> Divergence:
    divergence, counts, _ = compare(a, b)
    assert divergence is not None
    assert divergence.counts == counts
    return divergence


def test_identical(run: Run) -> None:
    events = [("mm", 1), ("add", 2)]
    assert compare(run(events), run(events)) == (None, EventCounts(2, 2, 0), 1.0)


def test_nothing_recorded_is_nothing_compared(run: Run) -> None:
    assert compare(run([]), run([]))[:2] == (None, EventCounts(0, 0, 0))


def test_the_first_of_several_values(run: Run) -> None:
    a = run([("mm", 1), ("add", (2, 3, 4), {"code": "m.py:5", "module": "h.0"}), ("sum", 5)])
    b = run([("mm", 1), ("add", (2, 8, 9), {"code": "m.py:5", "module": "h.0"}), ("sum", 6)])
    found = between(a, b)
    origin = found.origin
    assert origin.key == SiteKey(0, "forward", "h.0", "aten.add.default", 0)
    assert (origin.event, origin.output, origin.kind) == (1, 1, "value")
    assert origin.spec == TensorSpec("float32", (4,), "cpu")
    assert origin.call_site == "m.py:5"
    assert (origin.inputs_identical, origin.ulp, origin.caused_by) == (None, None, None)
    assert found.counts == EventCounts(compared=3, identical=1, divergent=2)
    assert (found.i, found.j, found.value_i, found.value_j) == (1, 1, 1, 1)


def test_the_same_bits_on_another_device_are_the_same(run: Run) -> None:
    assert compare(run([("mm", 1)]), run([("mm", 1, {"device": "cuda:0"})]))[0] is None


@pytest.mark.parametrize("changed", [{"shape": (2, 2)}, {"dtype": "float64"}])
def test_the_spec_is_part_of_the_value(run: Run, changed: dict[str, Any]) -> None:
    found = between(run([("mm", 1)]), run([("mm", 1, changed)]))
    assert (found.origin.kind, found.origin.event) == ("value", 0)
    assert found.origin.spec == TensorSpec("float32", (4,), "cpu")


def test_another_number_of_outputs(run: Run) -> None:
    assert between(run([("split", (1, 2, 3))]), run([("split", (1, 2))])).origin.output == 2
    assert between(run([("split", (1, 2))]), run([("split", (1, 2, 3))])).origin.kind == "value"


def test_events_without_a_digest_say_nothing(run: Run) -> None:
    a = run([("empty", None), ("view", 1), ("mm", 3)])
    b = run([("empty", None), ("view", None), ("mm", 3)])
    assert compare(a, b)[:2] == (None, EventCounts(1, 1, 0))


def test_a_backward_op_names_its_forward_op(run: Run) -> None:
    def events(value: int) -> list[Any]:
        return [
            ("index", 1, {"module": "emb", "code": "m.py:9"}),
            ("index_put", value, {"phase": "backward", "module": "emb", "cause": 0}),
        ]

    origin = between(run(events(1)), run(events(2))).origin
    assert origin.key.phase == "backward"
    assert origin.caused_by == CausedBy("aten.index.default", "emb", "m.py:9")


def test_a_recompute_is_called_one(run: Run) -> None:
    recompute = {"flags": RECOMPUTE, "phase": "backward"}
    origin = between(run([("mm", 1, recompute)]), run([("mm", 2, recompute)])).origin
    assert origin.recompute


def test_a_parameter_is_named(run: Run) -> None:
    weight = {"module": "head", "name": "weight"}
    origin = between(run([("param:weight", 1, weight)]), run([("param:weight", 2, weight)])).origin
    assert (origin.key.phase, origin.key.module, origin.output_name) == (
        "weights",
        "head",
        "weight",
    )


def test_an_op_in_one_run_only(run: Run) -> None:
    same = [("mm", 1), ("relu", 2)]
    more = [("mm", 1), ("dropout", 7, {"code": "m.py:3"}), ("relu", 2)]
    for a, b in ((run(more), run(same)), (run(same), run(more))):
        found = between(a, b)
        assert found.origin.kind == "structural"
        assert found.origin.key.op == "aten.dropout.default"
        assert found.origin.call_site == "m.py:3"
        assert found.origin.other_op == "aten.relu.default"
        assert found.counts == EventCounts(compared=3, identical=2, divergent=1)


def test_one_run_ends_earlier(run: Run) -> None:
    found = between(run([("mm", 1), ("relu", 2)]), run([("mm", 1)]))
    assert (found.origin.kind, found.origin.other_op) == ("structural", None)


def test_what_only_the_other_run_does_has_its_place_in_the_order(run: Run) -> None:
    """It comes before the value that it changed, not after all of the first run."""
    a = run([("mm", 1), ("relu", 2), ("sum", 3)])
    b = run([("mm", 1), ("dropout", 7), ("relu", 8), ("sum", 9)])
    assert between(a, b).origin.key.op == "aten.dropout.default"
    c = run([("mm", 5), ("dropout", 7), ("relu", 8), ("sum", 9)])
    assert between(a, c).origin.key.op == "aten.mm.default"


def test_generator_states_alone_are_no_divergence(run: Run) -> None:
    """A state that nobody draws from changes no result; neither does a seed."""
    a = run([("seed:random.seed", 1), ("rng:python", 1), ("mm", 1)])
    b = run([("seed:random.seed", 2), ("rng:python", 2), ("mm", 1), ("rng:numpy", 3)])
    assert compare(a, b)[:2] == (None, EventCounts(1, 1, 0))


def test_states_before_the_event_are_evidence(run: Run) -> None:
    def events(state: int, value: int) -> list[Any]:
        return [
            ("rng:torch", 1),
            ("mm", 1),
            ("rng:torch", state, {"step": 1}),
            ("dropout", value, {"step": 1, "flags": RANDOM}),
            ("rng:numpy", state, {"step": 2}),
        ]

    found = between(run(events(2, 1)), run(events(3, 2)))
    assert found.origin.key.op == "aten.dropout.default"
    assert found.states == (("torch", 1),)


SEED = "seed:torch.manual_seed"


@pytest.mark.parametrize(
    ("since", "states"),
    [
        ([("seed:random.seed", 1)], ()),
        ([("rng:python", 5, {"step": 1})], ()),
        # A generator of the program's own, and another one, leave it as it was.
        ([("seed:random.Random.seed", 1), ("seed:numpy.random.seed", 1)], (("python", 0),)),
        ([("seed:random.seed", None)], (("python", 0),)),
    ],
)
def test_states_that_were_alike_since_are_no_evidence(
    run: Run, since: list[Any], states: tuple[Any, ...]
) -> None:
    def events(n: int) -> list[Any]:
        later = [(op, n if value is None else value, *more) for op, value, *more in since]
        return [("rng:python", n), *later, ("DataLoader", n, {"kind": "batch", "step": 2})]

    runs = [run(events(n), undrawn=[1]) for n in (1, 2)]
    assert between(*runs).states == states


def test_a_seeding_of_torchs_sets_all_its_devices(run: Run) -> None:
    drawn = {"flags": RANDOM}
    runs = [
        run([("rng:torch", n), ("rng:torch.cuda:1", n), (SEED, 5), ("dropout", n, drawn)])
        for n in (1, 2)
    ]
    assert between(*runs).states == ()


@pytest.mark.parametrize(
    ("loaded", "made", "divergent"),
    [
        # Drawn, then loaded: of what is used nothing is drawn.
        ({"param:w": 7, "param:b": 8}, {}, ["aten.dropout.default"]),
        # One of them is used as it was drawn.
        ({"param:w": None, "param:b": 8}, {}, ["aten.uniform_.default"]),
        # Of another shape than what is used as it was drawn.
        ({"param:w": 7, "param:head": None}, {}, ["param:head"]),
        # Of a shape that no model that is called has.
        ({"param:w": 7, "param:b": 8}, {"shape": (9,)}, ["aten.uniform_.default"]),
        # In the middle of training, or none of a model's.
        ({"param:w": 7}, {"phase": "forward"}, ["aten.uniform_.default"]),
        ({}, {}, ["aten.uniform_.default"]),
    ],
)
def test_initial_weights_that_are_overwritten_are_not_compared(
    run: Run, loaded: dict[str, int | None], made: dict[str, Any], divergent: list[str]
) -> None:
    def events(n: int, last: int) -> list[Any]:
        drawn = ("uniform_", n, {"flags": RANDOM, "phase": "weights", "shape": (4,), **made})
        used = [
            (op, n if value is None else value, {"shape": (5,) if "head" in op else (4,)})
            for op, value in loaded.items()
        ]
        return [drawn, *used, ("dropout", last, {"flags": RANDOM})]

    found, counts, _ = compare(run(events(1, 1)), run(events(2, 2)))
    assert found is not None
    assert [found.origin.key.op] == divergent
    overwritten = divergent != ["aten.uniform_.default"]
    assert counts.incomparable == overwritten
    found, counts, _ = compare(run(events(1, 1)), run(events(2, 1)))
    assert (found is None) is (overwritten and None not in loaded.values())


def test_what_a_loader_stacks_may_be_chosen_by_any_generator(run: Run) -> None:
    def events(n: int, phase: str) -> list[Any]:
        return [("seed:random.seed", n, {"code": "t.py:9"}), ("stack", n, {"phase": phase})]

    assert between(*(run(events(n, "data")) for n in (1, 2))).origin.call_site == "t.py:9"
    assert between(*(run(events(n, "forward")) for n in (1, 2))).origin.call_site is None


def test_what_is_computed_again_has_a_line_of_its_own(run: Run) -> None:
    forward = ("tanh", 1, {"code": "t.py:11"})
    for flags, of in ((RECOMPUTE, None), (0, "aten.tanh.default")):
        again = {"phase": "backward", "cause": 0, "code": "t.py:9", "flags": flags}
        origin = between(*(run([forward, ("mul", n, again)]) for n in (1, 2))).origin
        assert origin.call_site == "t.py:9"
        assert (origin.caused_by and origin.caused_by.op) == of


@pytest.mark.parametrize(
    ("op", "columns"),
    [
        pytest.param("dropout", {"flags": RANDOM}, id="random-op"),
        pytest.param("DataLoader", {"kind": "batch"}, id="batch"),
    ],
)
def test_a_draw_leads_back_to_the_seed(run: Run, op: str, columns: dict[str, Any]) -> None:
    def events(seed: int, value: int) -> list[Any]:
        return [
            ("seed:random.seed", 0, {"code": "train.py:1"}),
            (SEED, seed, {"code": "train.py:2"}),
            ("seed:numpy.random.seed", seed, {"code": "train.py:3"}),
            ("mm", 1),
            (op, value, columns),
        ]

    found = between(run(events(1, 1)), run(events(2, 2)))
    assert found.origin.key.op == SEED
    assert (found.origin.key.phase, found.origin.kind) == ("rng", "value")
    assert found.origin.call_site == "train.py:2"
    assert (found.i, found.j, found.value_i, found.value_j) == (1, 1, 4, 4)
    assert found.counts == EventCounts(compared=2, identical=1, divergent=1)


@pytest.mark.parametrize(
    ("op", "columns", "seed"),
    [
        pytest.param("dropout", {"flags": RANDOM}, SEED, id="random-op"),
        pytest.param("DataLoader", {"kind": "batch"}, "seed:random.seed", id="batch"),
    ],
)
def test_of_all_generators_the_one_that_may_be_behind_it(
    run: Run, op: str, columns: dict[str, Any], seed: str
) -> None:
    """Programs seed them beside one another, and torch's not first."""

    def events(value: int) -> list[Any]:
        seeds = ("seed:random.seed", "seed:numpy.random.seed", SEED)
        return [*((each, value) for each in seeds), ("mm", 1), (op, value, columns)]

    assert between(run(events(1)), run(events(2))).origin.key.op == seed


def test_another_path_leads_back_to_the_seed(run: Run) -> None:
    a = run([(SEED, 1, {"code": "t.py:1"}), ("mm", 1), ("relu", 2)])
    b = run([(SEED, 2, {"code": "t.py:1"}), ("mm", 1), ("gelu", 2)])
    assert between(a, b).origin.key.op == SEED


@pytest.mark.parametrize("seeded", [0, 1])
def test_a_seeding_call_in_one_run_only(run: Run, seeded: int) -> None:
    runs = []
    for number in (0, 1):
        call = [(SEED, 5, {"code": "t.py:4"})] if number == seeded else []
        runs.append(run([*call, ("mm", 1), ("dropout", number, {"flags": RANDOM})]))
    origin = between(*runs).origin
    assert (origin.key.op, origin.call_site, origin.kind) == (SEED, "t.py:4", "value")


def test_a_value_that_no_draw_feeds_stays_the_origin(run: Run) -> None:
    """Other seeds were given, but nothing was drawn: the op diverged by itself."""
    a = run([(SEED, 1), ("rng:torch", 1), ("index_put", 1)])
    b = run([(SEED, 2), ("rng:torch", 2), ("index_put", 2)])
    found = between(a, b)
    assert found.origin.key.op == "aten.index_put.default"
    assert found.states == (("torch", 0),)


@pytest.mark.parametrize(
    ("undrawn", "event"), [([(0,), (0,)], 1), ([(0,), ()], 0), ([(), (0,)], 0)]
)
def test_the_seed_of_a_generator_that_nobody_draws_from_is_not_the_origin(
    run: Run, undrawn: list[tuple[int, ...]], event: int
) -> None:
    a, b = (
        run(
            [("seed:random.Random.seed", n), ("batch:loader", n, {"kind": "batch"})],
            undrawn=undrawn[n],
        )
        for n in range(2)
    )
    assert between(a, b).origin.event == event


def test_a_seed_given_afterwards_is_not_the_origin(run: Run) -> None:
    a = run([("dropout", 1, {"flags": RANDOM}), (SEED, 1)])
    b = run([("dropout", 2, {"flags": RANDOM}), (SEED, 2)])
    assert between(a, b).origin.key.op == "aten.dropout.default"


def test_equal_seeds_leave_a_draw_the_origin(run: Run) -> None:
    a = run([(SEED, 1), ("dropout", 1, {"flags": RANDOM})])
    b = run([(SEED, 1), ("dropout", 2, {"flags": RANDOM})])
    assert between(a, b).origin.key.op == "aten.dropout.default"


def test_of_several_threads_the_earliest(run: Run) -> None:
    """Nothing that came later can have fed it, however the other run interleaved."""
    one, two = {"thread": "1"}, {"thread": "2"}
    a = run([("mm", 1), ("add", 1, two), ("relu", 1, one), ("sum", 1)])
    b = run([("relu", 2, one), ("mm", 1), ("add", 2, two), ("sum", 2)])
    origin = between(a, b).origin
    assert (origin.key.op, origin.key.thread, origin.event) == ("aten.add.default", "2", 1)


def test_the_share_that_has_a_counterpart(run: Run) -> None:
    a = run([("mm", 1), ("add", 2), ("relu", 3), ("sum", 4)])
    assert compare(a, run([("mm", 1), ("add", 2), ("x", 3), ("y", 4)]))[2] == 0.5
    assert compare(a, run([("x", 1)]))[2] == 0.0
    assert compare(a, run([("rng:torch", 1)]))[2] == 0.0
