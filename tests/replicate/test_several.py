"""Several runs side by side, on tiny children: each takes the plan's path, as the real one does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from repro_audit.errors import InterruptedRunError
from repro_audit.model import Plan, Target
from repro_audit.replicate.launch import Outcome
from repro_audit.replicate.several import run_several

# Notes when it began and when it ended, by one clock for all.
NOTE = """
import json, os, sys, time
begun = time.monotonic()
plan = json.load(open(sys.argv[1]))
time.sleep(float(os.environ.get("NAP", "0.3")))
print(begun, time.monotonic())
sys.exit(7 if plan["seed"] == 1 else 0)
"""


def children() -> set[str]:
    """This process's children, ended ones that nobody has waited for among them."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for path in found for pid in path.read_text().split()}


def plans_in(directory: Path, count: int) -> list[Plan]:
    return [
        Plan(
            run=f"run-{n}",
            target=Target("script", "train.py"),
            trace=str(directory / f"run-{n}.sqlite"),
            progress=str(directory / f"run-{n}.progress"),
            seed=n,
        )
        for n in range(count)
    ]


def several(directory: Path, weights: list[float]) -> list[Outcome]:
    command = [sys.executable, "-c", NOTE]
    plans = plans_in(directory, len(weights))
    return run_several(plans, weights, directory=directory, command=command)


def spans(outcomes: list[Outcome]) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in (o.out.read_text().split() for o in outcomes)]


def together(spans: list[tuple[float, float]]) -> int:
    """How many ran at once at most."""
    return max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans)


def test_outcomes_are_in_order_and_a_failure_ends_no_other(tmp_path: Path) -> None:
    outcomes = several(tmp_path, [0.5] * 4)
    assert [outcome.run for outcome in outcomes] == ["run-0", "run-1", "run-2", "run-3"]
    assert [outcome.returncode for outcome in outcomes] == [0, 7, 0, 0]
    assert together(spans(outcomes)) <= 2


def test_what_weighs_all_runs_alone(tmp_path: Path) -> None:
    ran = spans(several(tmp_path, [0.5, 2.0, 0.5, 0.5]))
    heavy = ran.pop(1)
    assert all(ended <= heavy[0] or begun >= heavy[1] for begun, ended in ran)
    assert together([heavy]) == 1


def test_light_ones_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAP", "5")
    began = time.monotonic()
    assert together(spans(several(tmp_path, [0.25] * 4))) >= 2
    assert time.monotonic() - began < 4 * 5


def test_an_interrupt_buries_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAP", "100")

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "run-1.out").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    before = children()
    threading.Thread(target=interrupt).start()
    with pytest.raises(InterruptedRunError, match="interrupted in run-0, run-1"):
        several(tmp_path, [0.5, 0.5])
    assert children() == before
