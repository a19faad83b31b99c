"""The command as a process: what it imports, how it ends, how its help looks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import repro_audit
from repro_audit.report.json_report import save


def _python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80", **env},
        timeout=60,
    )


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, divergent) -> Path:
    place = tmp_path / ".repro-audit" / "0001-train"
    place.mkdir(parents=True)
    save(replace(divergent, directory=".repro-audit/0001-train"), place / "report.json")
    monkeypatch.chdir(tmp_path)
    return place


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["record", "--help"],
        ["compare", "--help"],
        ["report"],
        ["report", "0001", "--format", "json"],
        ["run"],
        ["train.py", "--lr", "1"],
    ],
)
def test_neither_torch_nor_numpy_is_imported(kept: Path, words: list[str]) -> None:
    program = f"""
import atexit, sys
def check():
    heavy = {{"torch", "numpy", "sqlite3"}} & set(sys.modules)
    print("HEAVY", sorted(heavy), file=sys.stderr)
atexit.register(check)
from repro_audit.cli import main
main({words!r})
"""
    assert "HEAVY []" in _python("-c", program).stderr


def test_the_package_is_lazy() -> None:
    program = """
import sys, repro_audit
assert {"torch", "numpy", "click", "rich"}.isdisjoint(sys.modules)
assert set(repro_audit.__all__) <= set(dir(repro_audit))
repro_audit.Fingerprint, repro_audit.UlpDivergence
assert {"torch", "numpy"}.isdisjoint(sys.modules)
try:
    repro_audit.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    raise SystemExit("no AttributeError")
"""
    assert _python("-c", program).returncode == 0


def test_version_is_the_distribution_s() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{repro_audit.__version__}"' in text
    assert _python("-m", "repro_audit", "--version").stdout == (
        f"repro-audit {repro_audit.__version__}\n"
    )


@pytest.mark.parametrize("words", [[], ["run"], ["record"], ["compare"], ["report"]])
def test_help_fits_and_shows_an_example(words: list[str]) -> None:
    result = _python("-m", "repro_audit", *words, "--help")
    assert result.returncode == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert re.search(r"Examples?:\n  repro-audit ", re.sub(r"\n {2}", "\n", result.stdout)) or (
        "  repro-audit " in result.stdout
    )


def test_no_words_is_help_and_a_usage_error() -> None:
    result = _python("-m", "repro_audit")
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: repro-audit")


def test_a_reader_that_goes_away_changes_nothing(kept: Path) -> None:
    command = (
        f"{sys.executable} -m repro_audit report 1 --format json | true; echo ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == "0\n"
    assert result.stderr == ""


def test_a_terminal_without_unicode(kept: Path) -> None:
    result = _python("-m", "repro_audit", "report", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert result.stdout.startswith("DIVERGENT  step 0 - forward - fc - aten.addmm")


@pytest.mark.parametrize("words", [("report",), ("report", "--format", "json"), ("doctor",)])
def test_standard_output_that_takes_nothing(kept: Path, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "repro_audit", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "cannot write to standard output: No space left on device" in result.stderr
