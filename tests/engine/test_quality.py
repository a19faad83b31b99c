"""A small part of the quality battery: what `python -m benchmarks.quality` runs in full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLIND = """
import sys
from benchmarks.quality import __main__ as battery
from benchmarks.quality.contenders import hash_tensor
from repro_audit import engine
engine.tensor_digest = lambda t: 2 * hash_tensor(t)
sys.exit(battery.main())
"""


def battery(
    *python: str, peers: str = "none", checksum: str = "digest"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, "--most", "2000", "--peers", peers]
    command += ["--checksum", checksum]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_two_tensors_share_a_digest(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = battery("-m", "benchmarks.quality", "--json", str(figures), peers="hash_tensor")
    assert done.returncode == 0, done.stderr
    families = json.loads(figures.read_text())["families"]
    assert sum(family["comparisons"] for family in families) > 2e7
    for family in families:
        assert family["contenders"]["digest"]["collisions"] == 0
    misses = {
        family["family"]: family["contenders"]["torch.hash_tensor"]["missed"] for family in families
    }
    assert misses["ulp_pairs"] > 500
    assert misses["permutations_of_few"] == 1999


def test_a_weak_checksum_fails_the_battery() -> None:
    done = battery("-c", BLIND)
    assert done.returncode == 1
    assert "ulp_pairs: whole, 128 bits" in done.stderr


def test_no_two_bags_share_a_multiset_digest(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = battery(
        "-m", "benchmarks.quality", "--json", str(figures), peers="l1", checksum="multiset"
    )
    assert done.returncode == 0, done.stderr
    families = json.loads(figures.read_text())["families"]
    assert sum(family["comparisons"] for family in families) > 1.5e7
    for family in families:
        assert family["contenders"]["multiset"]["collisions"] == 0


def test_a_weak_multiset_fails_the_battery() -> None:
    weak = BLIND.replace("engine.tensor_digest", "engine.multiset_digest")
    done = battery("-c", weak, checksum="multiset")
    assert done.returncode == 1
    assert "whole, 128 bits" in done.stderr
