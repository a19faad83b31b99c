"""Whole audits on an accelerator that is not CUDA's: faults are named, a clean program is clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

_BEGIN = """
import os
import torch
kind = os.environ["REPRO_AUDIT_DEVICE"]
module = getattr(torch, kind)
"""
_CLEAN = """
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv1d(8, 8, 3), torch.nn.Dropout(0.2), torch.nn.Flatten(), torch.nn.Linear(496, 8)
).to(kind)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
side = None if kind == "mps" else torch.Stream(kind)
for step in range(3):
    optimizer.zero_grad()
    x = torch.randn(16, 8, 64, device=kind)
    if side is None:
        y = x * 2 + 1
    else:
        here = torch.accelerator.current_stream()
        side.wait_stream(here)
        with side:
            y = x * 2 + 1
        here.wait_stream(side)
    with torch.autocast(kind, torch.bfloat16):
        loss = net(y).float().square().mean()
    loss.backward()
    optimizer.step()
"""
_RACE = """
torch.manual_seed(0)
source = torch.randn(100_000, device=kind, requires_grad=True)
where = torch.randint(0, 10, (100_000,), device=kind)
total = torch.zeros(10, device=kind).index_add(0, where, source * 2)
print(total.sum().item())
"""
_SEEDED = """
INIT
module.CALL(int.from_bytes(os.urandom(4), "little"))
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.3)).to(kind)
net(torch.ones(128, 64, device=kind)).sum().backward()
"""
_EMPTY = """
print((torch.empty(1000, device=kind) * 2).sum())
"""
_DROPS = """
torch.manual_seed(0)
x = torch.nn.functional.dropout(torch.ones(64, 64).to(kind), 0.5)
print(torch.relu(x).sum().item())
"""


def _called(place: Path, *words: str, expected: tuple[int, ...] = (0, 1)) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "repro_audit", *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in expected, (words, done.stdout, done.stderr)
    return done


def _audit(
    place: Path, program: str, *options: str, command: str = "run"
) -> tuple[int, dict[str, Any]]:
    (place / "program.py").write_text(_BEGIN + program)
    done = _called(place, command, "program.py", "--format", "json", *options)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("level", ["ops", "modules"])
def test_a_clean_program(tmp_path: Path, kind: str, level: str) -> None:
    code, report = _audit(
        tmp_path, _CLEAN, "--device", kind, "--level", level, "--self-check", "--no-confirm"
    )
    assert (code, report["verdict"], report["self_check"]["differing"]) == (0, "identical", [])


def test_a_race_is_named(tmp_path: Path, kind: str) -> None:
    code, report = _audit(tmp_path, _RACE, "--device", kind, "--no-confirm")
    assert code == 1
    assert report["first_divergence"]["op"] == "aten.index_add.default"
    assert report["cause"]["class"] == "nondeterministic-op"


@pytest.mark.parametrize(
    ("call", "used"), [("manual_seed", True), ("manual_seed_all", True), ("manual_seed_all", False)]
)
def test_a_device_s_seed_is_named(tmp_path: Path, kind: str, call: str, used: bool) -> None:
    if kind == "mps":
        call = "manual_seed"
    begin = "torch.ones(1, device=kind)" if used else ""
    program = _SEEDED.replace("INIT", begin).replace("CALL", call)
    code, report = _audit(tmp_path, program, "--device", kind, "--no-confirm")
    assert (code, report["cause"]["class"]) == (1, "unseeded-rng")
    divergence = report["first_divergence"]
    assert divergence["op"] == f"seed:torch.{kind}.{call}"
    assert divergence["call_site"] == "program.py:8"


def test_unwritten_memory_is_named(tmp_path: Path, kind: str) -> None:
    _, report = _audit(tmp_path, _EMPTY, "--device", kind)
    assert report["confirmation"]["cause"]["class"] == "uninitialized-memory"


def test_devices_that_drop_otherwise(tmp_path: Path, kind: str) -> None:
    code, report = _audit(tmp_path, _DROPS, "--device", f"cpu,{kind}")
    assert (code, report["cause"]["class"]) == (1, "config-difference")
    assert "draw other random numbers" in report["cause"]["evidence"][0]


def test_devices_that_are_given_what_to_drop(tmp_path: Path, kind: str) -> None:
    """The cause's remedy."""
    (tmp_path / "program.py").write_text(_BEGIN + _DROPS)
    for words in (
        "record program.py --capture full --device cpu -o A",
        f"verify A --same-start --device {kind}",
        f"record program.py --capture full --device {kind} -o B",
        "verify B --same-start --device cpu",
    ):
        _called(tmp_path, *words.split(), expected=(0,))


_MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2))

    def forward(self, x):
        return self.layers(x)
"""


def test_a_model_s_class_is_moved_to_a_device_by_its_number(tmp_path: Path, kind: str) -> None:
    (tmp_path / "model.py").write_text(_MODEL)
    last = torch.accelerator.device_count() - 1
    device = kind if kind == "mps" else f"{kind}:{last}"
    words = ["model.py:Net", "--input", "float32[4,16]", "--device", device]
    done = _called(tmp_path, "run", *words, "--format", "json", "--no-confirm")
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (0, "identical")


def test_every_device_is_screened(tmp_path: Path, kind: str) -> None:
    # One device alone is compared with itself.
    rounds = "2" if torch.accelerator.device_count() == 1 else "1"
    words = ["--device", kind, "--rounds", rounds, "-m", "repro_audit.workload"]
    done = _called(
        tmp_path, "screen", *words, "--format", "json", "--", "--size", "16", "--steps", "1"
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (0, "identical")
    screened = [device["name"] for device in report["screening"]["devices"]]
    assert len(screened) == torch.accelerator.device_count()
    assert all(name.startswith(kind) for name in screened)


def test_the_engine_is_asked_on_every_device(tmp_path: Path, kind: str) -> None:
    found = json.loads(_called(tmp_path, "doctor", "--format", "json", expected=(0,)).stdout)
    asked = [check for check in found["checks"] if check["device"].startswith(kind)]
    assert asked
    assert all(check["engine"] == "torch" and check["used"] for check in asked)
