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
    "field", ["environment.PYTHONHASHSEED", "torch.initial_seed", "target.arguments", "started"]
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
