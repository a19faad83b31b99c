"""Several runs at once: outcomes, pairs, and where they part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repro_audit.diagnose.runs import compare_runs
from repro_audit.model import EventCounts, Observed
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def two(first: int, second: int) -> list[Any]:
    return [("mm", first), ("add", second)]


def test_all_alike(run: Run) -> None:
    found = compare_runs([run(two(1, 2)) for _ in range(4)])
    assert found.observed == Observed(runs=4, distinct=1, differing_pairs=0, pairs=6)
    assert (found.divergence, found.sightings) == (None, ())
    assert found.counts == EventCounts(2, 2, 0)
    assert found.aligned == 1.0


def test_one_apart(run: Run) -> None:
    found = compare_runs([run(two(1, 2)), run(two(1, 2)), run(two(1, 3))])
    assert found.observed == Observed(runs=3, distinct=2, differing_pairs=2, pairs=3)
    assert found.divergence is not None
    assert found.divergence.origin.key.op == "aten.add.default"
    assert [(s.origin.key.op, s.pairs) for s in found.sightings] == [("aten.add.default", 2)]


def test_the_place_of_the_most_pairs_is_reported(run: Run) -> None:
    """A rare divergence earlier in the program is another sighting, not the answer."""
    runs = [run(two(1, 1)), run(two(1, 2)), run(two(1, 3)), run(two(2, 4))]
    found = compare_runs([*runs, run(two(1, 5))])
    assert found.observed == Observed(runs=5, distinct=5, differing_pairs=10, pairs=10)
    assert [(s.origin.key.op, s.pairs) for s in found.sightings] == [
        ("aten.add.default", 6),
        ("aten.mm.default", 4),
    ]
    assert found.divergence is not None
    assert found.divergence.origin.key.op == "aten.add.default"


def test_of_equally_many_pairs_the_earliest(run: Run) -> None:
    a, b, c = run(two(1, 1)), run(two(1, 2)), run(two(9, 2))
    found = compare_runs([a, a, b, c])
    assert found.sightings[0].pairs == 3
    assert [s.origin.key.op for s in found.sightings] == ["aten.mm.default", "aten.add.default"]


def test_generator_states_make_no_outcome(run: Run) -> None:
    found = compare_runs([run([("rng:torch", n), *two(1, 2)]) for n in range(3)])
    assert found.observed == Observed(runs=3, distinct=1, differing_pairs=0, pairs=3)


def test_how_threads_interleave_makes_no_outcome(run: Run) -> None:
    first, second = ("mm", 1), ("add", 2, {"thread": "1"})
    found = compare_runs([run([first, second]), run([second, first])])
    assert found.observed.distinct == 1


def test_no_digests_no_evidence(run: Run) -> None:
    """The caller sees that nothing was compared; such runs are not identical by proof."""
    found = compare_runs([run(two(None, None)), run(two(None, None))])
    assert found.counts == EventCounts(0, 0, 0)


def test_a_digest_that_one_run_did_not_take_is_no_other_outcome(run: Run) -> None:
    """A zoom reads more than the runs before it: what both read is what compares."""
    found = compare_runs([run(two(1, None)), run(two(1, 2))])
    assert found.observed == Observed(runs=2, distinct=1, differing_pairs=0, pairs=1)
