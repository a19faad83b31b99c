"""Experiments: what agrees is told from chance by runs with nothing held."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from repro_audit.audit.experiments import Laboratory
from repro_audit.audit.explain import corrected
from repro_audit.model import Cure, Experiment, Origin, SiteKey

KEY = SiteKey(0, "forward", "", "aten.mul.Tensor", 0)
HELD = ("hash-seed",)


class Programs:
    """A session whose runs give the outcomes that are written down, in turn."""

    def __init__(self, plain: str, held: str) -> None:
        self.request = SimpleNamespace(steps=None)
        self.left = {(): list(plain), HELD: list(held)}

    def attended(self, name: str, pass_name: str, *, pins: Any = (), **how: Any) -> Any:
        return SimpleNamespace(trace=self.left[pins].pop(0))

    def compare(self, one: str, other: str) -> tuple[Any, None, None]:
        found = SimpleNamespace(origin=SimpleNamespace(key=KEY))
        return (None if one == other else found), None, None


@pytest.mark.parametrize(
    ("plain", "held", "among", "n", "differs"),
    [
        # All pairs differ: seen before in three of four.
        ("abcd", "a" * 16, 1, 4, False),
        ("abcd", "a" * 16, 10, 5, False),
        # As many as are needed by what was seen before agree, and one more does not.
        ("aaab", "aaaab", 1, 5, True),
        ("aabb", "a" * 16, 1, 4, False),
        ("aabb", "a" * 16, 10, 7, False),
        ("", "ab", 1, 2, True),
        # It would take more than are made.
        ("aaab", "a" * 16, 10, 9, False),
        ("aaaa", "a" * 16, 1, 4, None),
    ],
)
def test_what_agrees_is_told_from_chance(
    plain: str, held: str, among: int, n: int, differs: bool | None
) -> None:
    session: Any = Programs(plain, held)
    tried = Laboratory(session, KEY, 0.75).held(HELD, among=among)
    assert (tried.n, tried.differs) == (n, differs)
    assert (tried.reason is None) == (differs is not None)
    if differs is None:
        assert tried.reason == "may be chance: without it 6 of 6 pairs agree too"


def test_runs_with_nothing_held_are_made_once() -> None:
    session: Any = Programs("abcd", "a" * 8)
    laboratory = Laboratory(session, KEY, 0.75)
    assert [laboratory.held(HELD).differs for _ in range(2)] == [False, False]
    assert session.left == {(): [], HELD: []}


@pytest.mark.parametrize(
    ("process", "step", "op", "event", "taken_back"),
    [
        ("", 2, "aten.mm.default", 50, True),
        # Another place, later: the first divergence was cured.
        ("", 2, "aten.add.Tensor", 50, False),
        ("", 2, "aten.add.Tensor", 30, True),
        # Of another process the steps alone tell.
        ("1", 3, "aten.add.Tensor", 30, False),
        ("1", 2, "aten.add.Tensor", 50, True),
    ],
)
def test_a_cure_that_leaves_what_comes_no_later_is_taken_back(
    process: str, step: int, op: str, event: int, taken_back: bool
) -> None:
    def origin(process: str, step: int, op: str, event: int) -> Origin:
        key = SiteKey(step, "forward", "", op, 0, "", process)
        return Origin(key, event, 0, None, None, "value")

    cure = Cure(HELD, ("sort",), 2, False, None, origin(process, step, op, event))
    agreed = Experiment(HELD, "the hash seed fixed", "program", 4, False)
    first = origin("", 2, "aten.mm.default", 40)
    assert corrected(agreed, cure, [HELD], first).differs is taken_back
