"""Whether observing changed a program, told apart from what changes by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repro_audit.audit import selfcheck
from repro_audit.model import SelfCheck


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What is said of runs whose parameter `w` ended so: two unobserved ones, those observed."""

    def check(plain: str, seen: str, stale: tuple[str, ...] = ()) -> tuple[SelfCheck, int]:
        states = iter([{"w": w, "output": "x"} for w in (*plain, *seen)])
        monkeypatch.setattr(selfcheck, "_state", lambda path, printed: next(states))
        runs = iter([("", stale)])

        def observed(*words: Any, **options: Any) -> Any:
            name, reads = next(runs)
            return SimpleNamespace(
                trace=SimpleNamespace(stale_reads=reads), info=SimpleNamespace(name=name)
            )

        session = SimpleNamespace(
            total=0,
            directory=tmp_path,
            request=SimpleNamespace(replicas=[("run-1", None)], isolate=False),
            unobserved=lambda name, end_state: tmp_path / name,
            observed=observed,
        )
        first = SimpleNamespace(
            trace=SimpleNamespace(stale_reads=()), info=SimpleNamespace(name="run-1")
        )
        found = selfcheck.check(session, first, tmp_path / "end.json")
        assert next(states, None) is None
        return found, session.total

    return check


def test_a_program_that_was_not_disturbed_is_run_twice_more(checked) -> None:
    assert checked("aa", "a") == (SelfCheck(2, (), ()), 2)


def test_one_that_was_is_accused_after_one_more_run(checked) -> None:
    assert checked("aa", "bb") == (SelfCheck(2, (), ("w",)), 3)


def test_what_varies_between_unobserved_runs_is_not_compared(checked) -> None:
    assert checked("ab", "c") == (SelfCheck(1, ("w",), ()), 2)


def test_what_varies_may_agree_twice_by_chance(checked) -> None:
    assert checked("aa", "bc") == (SelfCheck(1, ("w",), ()), 3)


def test_a_program_that_goes_on_from_its_last_run(checked) -> None:
    assert checked("bb", "ab", stale=("model.pt",)) == (SelfCheck(2, (), ()), 3)
