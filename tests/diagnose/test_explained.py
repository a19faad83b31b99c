"""What experiments make of a likely cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro_audit.control.pins import PINS
from repro_audit.diagnose.explained import Meaning, explained, interval
from repro_audit.model import Cause, Experiment, Explanation, Replay

MEANINGS = {pin.name: Meaning(pin.cls, pin.remedy) for pin in PINS}
UNKNOWN = Cause("unknown", "likely", ("nothing points at a cause",), ("look",))
VARIES = Replay(calls=10, counts=(6, 4), pairs=5, differing_pairs=2, recorded=0, output=0)
STEADY = Replay(calls=10, counts=(10,), pairs=5, recorded=0, output=0)
ANYWAY = "alone, on the same inputs, the op gave one result in 10 calls"


def tried(*pins: str, differs: bool | None, on: str = "program") -> Experiment:
    return Experiment(pins, " and ".join(pins), on, 3, differs)


def found(cause: Cause, *experiments: Experiment, replay: Replay | None = None) -> Cause:
    return explained(cause, Explanation(replay, experiments), MEANINGS, changed=False)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # R. G. Newcombe (1998), table I: the score method without continuity correction.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_of_the_literature(hits: int, of: int, low: float, high: float) -> None:
    assert interval(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_what_makes_it_vanish_is_proven() -> None:
    cause = found(UNKNOWN, tried("deterministic", differs=True), tried("one-thread", differs=False))
    assert (cause.cls, cause.confidence) == ("parallelism", "proven")
    assert cause.remedies == ("torch.set_num_threads(1)",)


def test_memory_that_something_else_writes_is_no_cause() -> None:
    likely = replace(UNKNOWN, cls="uninitialized-memory")
    cause = found(likely, tried("filled-memory", differs=True), tried("one-thread", differs=True))
    assert cause.cls == "unknown"
    assert "torch.zeros" not in " ".join(cause.remedies)
    assert found(likely, tried("one-thread", differs=True)) == likely


def test_the_likely_one_goes_first_among_several() -> None:
    likely = replace(UNKNOWN, cls="data-order", evidence=("the same rows, in another order",))
    cause = found(likely, tried("one-thread", differs=False), tried("no-aslr", differs=False))
    assert (cause.cls, cause.confidence) == ("data-order", "proven")
    assert cause.evidence[0] == likely.evidence[0]
    assert cause.remedies == likely.remedies


def test_a_set_of_conditions_proves_no_class() -> None:
    cause = found(UNKNOWN, tried("one-thread", "no-aslr", differs=False))
    assert (cause.cls, cause.confidence) == ("unknown", "likely")
    assert "one-thread and no-aslr" in cause.evidence[-1]


def test_of_several_sets_the_smallest_is_told() -> None:
    likely = replace(UNKNOWN, cls="data-order")
    cause = found(
        likely,
        tried("no-aslr", differs=True),
        tried("no-aslr", "one-thread", "fixed-seeds", differs=False),
        tried("no-aslr", "fixed-seeds", differs=False),
        tried("no-aslr", "one-thread", differs=True),
    )
    assert (cause.cls, cause.confidence) == ("data-order", "likely")
    assert cause.evidence[-1] == "with no-aslr and fixed-seeds, 3 of 3 runs agree"


def test_nothing_found_and_nothing_known_change_nothing() -> None:
    assert (
        found(UNKNOWN, tried("one-thread", differs=None), tried("no-aslr", differs=True)) == UNKNOWN
    )


def test_an_op_that_varies_alone() -> None:
    cause = found(
        UNKNOWN,
        tried("deterministic", differs=False, on="call"),
        tried("one-thread", differs=True, on="call"),
        replay=VARIES,
    )
    assert (cause.cls, cause.confidence) == ("nondeterministic-op", "proven")
    assert "2 of 5 pairs" in cause.evidence[0]
    assert cause.remedies == ("torch.use_deterministic_algorithms(True)",)


def test_an_op_that_varies_alone_and_that_nothing_cures() -> None:
    cause = found(UNKNOWN, tried("deterministic", differs=True, on="call"), replay=VARIES)
    assert (cause.cls, cause.confidence) == ("nondeterministic-op", "proven")
    assert "no setting" in cause.remedies[0]


def test_an_op_that_never_varies_alone_is_innocent() -> None:
    cause = found(UNKNOWN, tried("no-aslr", differs=False), replay=STEADY)
    assert (cause.cls, cause.confidence) == ("data-order", "proven")
    assert "one result in 10 calls" in cause.evidence[-1]


def test_that_it_never_varied_alone_is_said_of_an_op_that_is_blamed_too() -> None:
    likely = replace(UNKNOWN, cls="nondeterministic-op", evidence=("the same inputs",))
    cause = found(likely, tried("one-thread", differs=True), replay=STEADY)
    assert (cause.cls, cause.confidence) == ("nondeterministic-op", "likely")
    assert cause.evidence == ("the same inputs", ANYWAY)
    cause = found(likely, tried("deterministic", differs=False), replay=STEADY)
    assert (cause.confidence, cause.evidence[-1]) == ("proven", ANYWAY)


def test_filled_memory_is_told_from_the_deterministic_flag() -> None:
    """Both make it vanish; two fillings that give two results prove that memory is read."""
    both = (tried("deterministic", differs=False), tried("filled-memory", differs=False))
    assert found(UNKNOWN, *both).cls == "nondeterministic-op"
    contrast = Experiment(("filled-memory",), "two fillings", "program", 2, True)
    cause = found(UNKNOWN, *both, contrast)
    assert (cause.cls, cause.confidence) == ("uninitialized-memory", "proven")


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("hash-seed", "data-order"),
        ("memory", "uninitialized-memory"),
        ("listings", "data-order"),
        ("seeds", "unseeded-rng"),
    ],
)
def test_what_a_confirming_run_changed(name: str, cls: str) -> None:
    experiments = (tried("other", differs=False), tried(name, differs=True))
    cause = explained(UNKNOWN, Explanation(None, experiments), {}, changed=True)
    assert (cause.cls, cause.confidence) == (cls, "proven")


def test_what_differs_by_chance_proves_nothing() -> None:
    experiments = (tried("hash-seed", differs=False), tried("seeds", differs=False))
    cause = explained(UNKNOWN, Explanation(None, experiments), {}, changed=True)
    assert (cause.cls, cause.confidence) == ("unknown", "likely")
    assert "chance" in cause.evidence[-1]


def test_what_was_tried_and_did_not_help_is_not_advised() -> None:
    asked = ("--deterministic, if it heeds that", "one thread: torch.set_num_threads(1)", "another")
    cause = replace(UNKNOWN, remedies=asked)
    assert found(cause, tried("deterministic", differs=True)).remedies == asked[1:]
    assert found(cause, tried("deterministic", differs=None)).remedies == asked
    failed = [tried(name, differs=True) for name in ("deterministic", "one-thread")]
    assert found(cause, *failed).remedies == asked[2:]
    (only,) = found(replace(cause, remedies=asked[:1]), *failed).remedies
    assert only.startswith("another op: no setting")
