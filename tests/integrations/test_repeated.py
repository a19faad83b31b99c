"""A function called twice: what it is told of, and what it leaves as it was."""

from __future__ import annotations

import importlib
import itertools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import repro_audit as ra
import repro_audit.errors
from repro_audit.errors import InconclusiveError, UsageError
from repro_audit.model import Tolerance


def train(steps: int = 2, scale: float = 1.0) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(steps):
        x = torch.randn(16, 8) * random.random() + torch.from_numpy(np.random.rand(8)).float()
        optimizer.zero_grad()
        (net(x) * scale).square().mean().backward()
        optimizer.step()


def test_what_is_seeded_alike_is_identical() -> None:
    audit = ra.check_reproducible(train)
    assert (audit.verdict, audit.target, audit.command) == ("identical", "train", "check")
    assert [run.name for run in audit.runs] == ["run-1", "run-2"]
    assert audit.runs[0].manifest["steps"] == 2
    assert audit.events.compared > 60


def test_what_goes_on_from_the_last_call_is_named() -> None:
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step() -> None:
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    with pytest.raises(ra.NotReproducibleError) as caught:
        ra.check_reproducible(step)
    text = str(caught.value)
    assert text.splitlines()[0].endswith("step")
    assert "DIVERGENT  step 0 · weights · " in text
    assert "what is made outside the function outlives a call" in " ".join(text.split())
    assert "/tmp" not in text
    assert caught.value.audit.origin.key.op == "param:weight"
    assert isinstance(caught.value, AssertionError)


def test_what_an_import_computes_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constants_here.py").write_text(
        "import torch\nEYE = torch.eye(3) + torch.rand(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    calls = []

    def use() -> None:
        calls.append(None)
        constants = importlib.import_module("constants_here")
        torch.randn(3, 3) @ constants.EYE

    assert ra.check_reproducible(use).verdict == "identical"
    assert len(calls) == 3
    del sys.modules["constants_here"]
    ra.record_baseline(use, tmp_path / "baseline")
    ra.check_reproducible(use, runs=1, baseline=tmp_path / "baseline")


def test_the_op_is_named_that_differs() -> None:
    calls = itertools.count()

    def draw() -> None:
        torch.randn(3).mul(2.0 + next(calls) % 3)

    with pytest.raises(ra.NotReproducibleError, match=r"aten\.mul .*test_repeated\.py"):
        ra.check_reproducible(draw, runs=3)


def test_generators_are_put_back() -> None:
    def states() -> list[object]:
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        ]

    before = states()
    ra.check_reproducible(train, seed=7)
    assert states() == before


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    place = tmp_path / "train.audit"
    ra.record_baseline(train, place, seed=1)
    with pytest.raises(ra.NotReproducibleError):
        ra.check_reproducible(train, baseline=place)
    assert ra.check_reproducible(train, baseline=place, seed=1, runs=1).verdict == "identical"


def test_a_baseline_is_compared_within_a_tolerance(tmp_path: Path) -> None:
    place = tmp_path / "train.audit"
    ra.record_baseline(lambda: train(1), place)
    near = 1 + 2**-23
    with pytest.raises(ra.NotReproducibleError, match=r"aten\.mul"):
        ra.check_reproducible(lambda: train(1, near), baseline=place)
    audit = ra.check_reproducible(
        lambda: train(1, near), baseline=place, tolerance=Tolerance(ulp=1 << 20)
    )
    assert audit.verdict == "within-tolerance"
    assert [run.name for run in audit.runs] == ["train.audit", "run-1"]


def test_modules_alone_may_be_looked_at() -> None:
    ops, modules = (ra.check_reproducible(train, level=level) for level in ("ops", "modules"))
    assert modules.events.compared < ops.events.compared


def test_an_exception_is_the_function_s_own() -> None:
    with pytest.raises(ZeroDivisionError):
        ra.check_reproducible(lambda: torch.ones(1) / 0 + 1 // 0)
    assert ra.check_reproducible(train).verdict == "identical"


def test_bad_input_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="runs=2 at least"):
        ra.check_reproducible(train, runs=1)
    with pytest.raises(UsageError, match=r"record_baseline\(\) writes one"):
        ra.check_reproducible(train, baseline=tmp_path / "none.audit")
    with pytest.raises(InconclusiveError, match="computed nothing"):
        ra.check_reproducible(lambda: None)
    ra.record_baseline(train, tmp_path / "a.audit")
    with pytest.raises(UsageError, match="exists"):
        ra.record_baseline(train, tmp_path / "a.audit")
    with pytest.raises(UsageError, match="make it first"):
        ra.record_baseline(train, tmp_path / "none" / "a.audit")
    with pytest.raises(UsageError, match="level 'ops'"):
        ra.check_reproducible(train, baseline=tmp_path / "a.audit", level="modules")
    with pytest.raises(UsageError, match="is no level"):
        ra.check_reproducible(train, level="module")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no level"):
        ra.record_baseline(train, tmp_path / "b.audit", level="foo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no number of runs"):
        ra.check_reproducible(train, runs="2")  # type: ignore[arg-type]
    for tolerance in (4, Tolerance(ulp=-1), Tolerance(ulp="4")):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is no tolerance"):
            ra.check_reproducible(train, tolerance=tolerance)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="for a baseline"):
        ra.check_reproducible(train, tolerance=Tolerance(ulp=1))
    with pytest.raises(UsageError, match="its body did not run"):
        ra.check_reproducible(lambda: (torch.ones(1) for _ in range(2)))
    with pytest.raises(InconclusiveError, match="level='ops'"):
        ra.check_reproducible(lambda: torch.ones(2) + 1, level="modules")


def test_a_baseline_that_is_not_whole_replaces_none(tmp_path: Path) -> None:
    place = tmp_path / "a.audit"

    def fails() -> None:
        torch.ones(2).sum()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ra.record_baseline(fails, place)
    with pytest.raises(InconclusiveError, match="computed nothing"):
        ra.record_baseline(lambda: None, place)
    assert list(tmp_path.iterdir()) == []
    ra.record_baseline(train, place)
    before = place.read_bytes()
    with pytest.raises(ValueError, match="no"):
        ra.record_baseline(fails, place, force=True)
    assert place.read_bytes() == before


def test_a_recording_that_cannot_be_written_is_no_longer_under_way(tmp_path: Path) -> None:
    def removes() -> None:
        train()
        for part in tmp_path.iterdir():
            part.unlink()

    with pytest.raises(ra.errors.ReproAuditError):
        ra.record_baseline(removes, tmp_path / "a.audit")
    assert ra.check_reproducible(train).verdict == "identical"


def test_the_first_use_draws_nothing_either() -> None:
    program = (
        "import random, torch, repro_audit as ra\n"
        "random.seed(0)\n"
        "expected = random.getstate()\n"
        "ra.check_reproducible(lambda: torch.ones(2).sum())\n"
        "assert random.getstate() == expected\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
