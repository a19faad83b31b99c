"""Planted faults, named exactly: what `python -m benchmarks.planted` does, in part or whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = "mlp,cnn,lstm,graph,gpt"
WHOLE = ("mlp", "cnn", "resnet", "lstm", "gru", "encoder", "gpt", "vit", "unet", "vae", "experts")
WHOLE += ("graph", "workers")

# As it would be if a backward's operators were all of the root's.
MISNAMED = """
import sys
from benchmarks.planted import __main__ as suite
from repro_audit.capture.dispatch import OpMode
OpMode._of_node = lambda *_: ("", None)
sys.exit(suite.main())
"""
# As it would be if a zero's sign were no bit of it.
BLIND = """
import sys
import numpy as np
import torch
from benchmarks.planted import __main__ as suite
from repro_audit import engine
digest = engine.plain_digest
def blind(tensor):
    if not tensor.is_floating_point():
        return digest(tensor)
    return digest(torch.from_numpy(np.asarray(tensor.detach().numpy() + 0)))
engine.plain_digest = blind
sys.exit(suite.main())
"""


def suite(tmp_path: Path, *options: str, code: str | None = None) -> tuple[int, dict[str, Any]]:
    """The suite's exit code, and what it wrote."""
    python = [sys.executable, *(("-c", code) if code else ("-m", "benchmarks.planted"))]
    result = tmp_path / "planted.json"
    done = subprocess.run(
        [*python, "--processes", "0", *options, "--json", str(result)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    found: dict[str, Any] = json.loads(result.read_text())
    return done.returncode, found


def wrong(found: dict[str, Any]) -> list[Any]:
    return [each for group in ("placements", "clean") for each in found[group] if not each["ok"]]


def test_a_sample(tmp_path: Path) -> None:
    code, found = suite(tmp_path, "--architectures", SAMPLE, "--sample", "--clean", "1")
    assert wrong(found) == []
    assert code == 0
    assert found["summary"]["placements"] >= 30
    assert set(found["summary"]["by phase"]) == {"forward", "backward", "optimizer", "data", "rng"}


@pytest.mark.parametrize(("broken", "names"), [(MISNAMED, "backward"), (BLIND, "zero")])
def test_what_is_named_wrong_is_wrong(tmp_path: Path, broken: str, names: str) -> None:
    code, found = suite(tmp_path, "--architectures", "mlp", "--sample", "--clean", "0", code=broken)
    assert code == 1
    expected = [each["name"] for each in found["placements"] if names in each["name"]]
    assert [each["name"] for each in wrong(found)] == expected


@pytest.mark.whole
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", WHOLE)
def test_all(tmp_path: Path, architecture: str) -> None:
    code, found = suite(tmp_path, "--architectures", architecture)
    assert wrong(found) == []
    assert code == 0
    assert found["summary"]["placements"] >= 24
    assert found["summary"]["clean audits"] == 8
