"""Threads that were cut off: compared as far as both runs came, and no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from repro_audit.diagnose.origin import compare
from repro_audit.trace import Trace

Run = Callable[..., Trace]


def thread(*values: int, name: str = "1") -> list[Any]:
    return [("mm", value, {"thread": name}) for value in values]


@pytest.mark.parametrize("name", ["1", ""])
def test_the_shorter_one_says_how_far(run: Run, name: str) -> None:
    long, short = thread(1, 2, 3, 4, name=name), thread(1, 2, 3, name=name)
    # The last event of a thread that was cut off may be there in part.
    for a, b in ((long, short), (short, long)):
        found, counts, _ = compare(run(a, cut=[name]), run(b, cut=[name]))
        assert (found, counts.compared) == (None, 2)


def test_a_difference_before_the_cut_is_one(run: Run) -> None:
    found, counts, _ = compare(run(thread(1, 2, 3, 4), cut=["1"]), run(thread(1, 9, 3), cut=["1"]))
    assert found is not None
    assert (found.origin.key.thread, found.origin.key.call_index) == ("1", 1)
    assert counts.divergent == 1


def test_another_path_before_the_cut_is_one(run: Run) -> None:
    other = [*thread(1), ("add", 2, {"thread": "1"}), *thread(3)]
    found, _, _ = compare(run(thread(1, 2, 3, 4), cut=["1"]), run(other, cut=["1"]))
    assert found is not None
    assert found.origin.kind == "structural"


def test_more_than_a_thread_that_ended_did_is_a_difference(run: Run) -> None:
    a, b = run(thread(1, 2, 3, 4, 5), cut=["1"]), run(thread(1, 2))
    for one, other in ((a, b), (b, a)):
        found, _, _ = compare(one, other)
        assert found is not None
        assert found.origin.kind == "structural"


def test_what_both_ended_is_compared_whole(run: Run) -> None:
    found, _, _ = compare(run(thread(1, 2, 3)), run(thread(1, 2)))
    assert found is not None
