"""The plugin as a user has it: found by its entry point, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import itertools
import torch

calls = itertools.count()

def steady():
    torch.randn(4).mul(2.0).sum()

def shaky():
    torch.randn(4).mul(2.0 + next(calls)).sum()

def test_steady(reproducible):
    assert reproducible(steady).verdict == "identical"

def test_shaky(reproducible):
    reproducible(shaky)

def test_kept(reproducible):
    reproducible(steady, baseline="steady")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\nrepro_audit_baselines = kept\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words],
        cwd=project,
        # Where that is set pytest repeats reports in its summary.
        env={name: value for name, value in os.environ.items() if name != "CI"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_a_test_fails_where_a_tensor_differs_or_a_baseline_is_missing(project: Path) -> None:
    code, text = run(project)
    assert code == 1
    assert "2 failed, 1 passed" in text
    assert text.count("DIVERGENT  step 0 · forward · aten.mul") == 1
    assert "test_it.py:11" in text
    assert f"there is no baseline {project}/kept/steady.audit; pytest --repro-audit-update" in text
    assert "Traceback" not in text


def test_baselines_are_written_when_asked_for_and_compared_from_then_on(project: Path) -> None:
    code, text = run(project, "--repro-audit-update", "-k", "kept")
    assert code == 0, text
    assert (project / "kept" / "steady.audit").is_file()
    assert run(project, "-k", "kept")[0] == 0
    program = project / "test_it.py"
    program.write_text(program.read_text().replace("mul(2.0).sum()", "mul(2.5).sum()"))
    code, text = run(project, "-k", "kept")
    assert code == 1
    assert "DIVERGENT  step 0 · forward · aten.mul" in text
    assert "steady.audit" in text
