"""Runs that were not made alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro_audit.diagnose.configuration import configured
from repro_audit.model import Cause, ManifestDifference

UNKNOWN = Cause("unknown", "likely", ("nothing",), ("look",), "torch docs")
THREADS = ManifestDifference("torch.get_num_threads", {"a": 1, "b": 2})


def test_a_setting_that_differs() -> None:
    cause = configured(UNKNOWN, (THREADS,))
    assert (cause.cls, cause.confidence, cause.source) == ("config-difference", "likely", None)
    assert "torch.get_num_threads is 1 and 2" in cause.evidence[0]


@pytest.mark.parametrize(
    "field", ["environment.PYTHONHASHSEED", "torch.initial_seed", "target.label", "started"]
)
def test_what_is_no_setting(field: str) -> None:
    assert configured(UNKNOWN, (ManifestDifference(field, {"a": "1", "b": "2"}),)) == UNKNOWN


def test_what_was_seen_goes_first() -> None:
    drawn = replace(UNKNOWN, cls="unseeded-rng")
    assert configured(drawn, (THREADS,)) == drawn
    assert configured(UNKNOWN, ()) == UNKNOWN


def test_many_are_counted() -> None:
    many = [ManifestDifference(f"torch.x{n}", {"a": n, "b": None}) for n in range(5)]
    said = configured(UNKNOWN, many).evidence[0]
    assert "torch.x2 is 2 and null" in said
    assert "2 more settings differ" in said


ARGUMENTS = ManifestDifference("target.arguments", {"a": [], "b": ["--lr", "0.2"]})
SOURCE = ManifestDifference("target.sha256", {"a": "12", "b": "34"})


def test_a_program_that_was_told_something_else() -> None:
    cause = configured(UNKNOWN, (THREADS, ARGUMENTS))
    said = "the runs were not made alike: the program's arguments are none and --lr 0.2"
    assert (cause.cls, cause.evidence) == ("config-difference", (said,))
    assert cause.remedies == ("give both runs the same arguments, then compare again",)


def test_a_program_that_was_changed() -> None:
    cause = configured(UNKNOWN, (ARGUMENTS, SOURCE))
    assert "the program's source differs" in cause.evidence[0]
    assert "check out the commit" in cause.remedies[0]
    unread = replace(SOURCE, values={"a": "12", "b": None})
    assert configured(UNKNOWN, (unread,)) == UNKNOWN


def test_draws_of_a_program_that_was_told_something_else_are_its_doing() -> None:
    drawn = replace(UNKNOWN, cls="unseeded-rng", evidence=("another seed",))
    cause = configured(drawn, (ARGUMENTS,))
    assert (cause.cls, cause.evidence[1:]) == ("config-difference", ("another seed",))
    unwritten = replace(UNKNOWN, cls="uninitialized-memory")
    assert configured(unwritten, (ARGUMENTS,)) == unwritten
