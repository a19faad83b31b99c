"""`diagnose`: every engine is asked, and a wrong one is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from repro_audit import engine
from repro_audit.engine import by_stream, doctor, kernels, reference, torch_ops


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    engine.select(None)


def test_all_are_asked_and_right() -> None:
    found = doctor.diagnose()
    assert found.healthy
    on_cpu = [check.engine for check in found.checks if check.device == "cpu"]
    assert on_cpu == [name for name in engine.available() if name not in kernels.NAMES]
    present = [check for check in found.checks if check.present]
    assert all(check.asked == check.right > 100 and not check.problem for check in present)
    assert [check.engine for check in present if check.used and check.device == "cpu"] == [
        engine.name()
    ]
    assert found.versions["digest"] == "1"


def test_what_is_missing_is_said() -> None:
    checks = doctor.diagnose().checks
    missing = [check for check in checks if not check.present]
    there = {check.engine for check in checks if check.present}
    assert [check.engine for check in missing] == [n for n in kernels.NAMES if n not in there]
    assert all(check.problem and not check.wrong for check in missing)


@pytest.mark.parametrize("name", ["portable", "reference"])
def test_the_engine_in_use_stays(name: str) -> None:
    engine.select(name)
    used = [check.engine for check in doctor.diagnose().checks if check.used]
    assert used[0] == name == engine.name()
    assert engine.info()["forced"]


def _off_by_one(data: Any, offset: int, key: int) -> tuple[int, int]:
    lane0, lane1 = reference.stream_lanes(data, offset, key)
    return lane0, lane1 ^ (len(data) > 4000)


def _raising(data: Any, offset: int, key: int) -> tuple[int, int]:
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("stream", "words"),
    [(_off_by_one, "the lanes of .* is wrong"), (_raising, "RuntimeError: no kernel image")],
)
def test_a_wrong_engine_is_found(monkeypatch: pytest.MonkeyPatch, stream: Any, words: str) -> None:
    wrong = by_stream.StreamEngine(stream, reference.multiset_lanes)
    monkeypatch.setattr(torch_ops, "engine", lambda: wrong)
    found = doctor.diagnose()
    assert not found.healthy
    (bad,) = [check for check in found.checks if check.wrong]
    assert bad.engine == "torch"

    assert re.match(words, bad.problem)
