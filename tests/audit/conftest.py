"""The command line as a user runs it: a process of its own, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repro_audit.audit import AuditRequest, MatrixRequest, run_matrix
from repro_audit.model import Audit, Level
from repro_audit.replicate.target import parse_target

# As the installed command: without the working directory on its path.
COMMAND = [sys.executable, "-P", "-m", "repro_audit"]


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


def environment(**changes: str) -> dict[str, str]:
    dropped = {"REPRO_AUDIT_ENGINE", "REPRO_AUDIT_DEBUG", "PYTHONHASHSEED", "PYTHONPATH"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **changes}


@pytest.fixture
def audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Any]
) -> Callable[..., Result]:
    """Runs `repro-audit WORD…` in `tmp_path`, the current directory; `env` changes variables."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> Result:
        done = command_line(words, cwd=cwd, env=environment(**(env or {})), timeout=120)
        assert "Traceback" not in done.stdout
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `repro-audit WORD…` in a process group of its own, and does not wait."""

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def plainly(tmp_path: Path) -> Callable[..., Result]:
    """Runs `python WORD…` in `tmp_path`, as without us."""

    def call(*words: str) -> Result:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment(PYTHONHASHSEED="0"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a program into `tmp_path`."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write


@pytest.fixture
def first_run(tmp_path: Path) -> Callable[..., str]:
    """What the first run of the latest audit printed: `out` or `err`."""

    def read(stream: str = "out", run: str = "run-1") -> str:
        latest = max(path for path in (tmp_path / ".repro-audit").iterdir() if path.is_dir())
        return (latest / f"{run}.{stream}").read_text()

    return read


class Silent:
    """Shows no progress, and holds it to its total."""

    def start(self, run: str, position: int, total: int) -> None:
        assert position <= total

    def update(self, steps: int, events: int) -> None:
        pass

    def finish(self) -> None:
        pass


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Audit]:
    """Runs a program's matrix in `tmp_path`; by default one run of each cell, two at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(
        text: str,
        *vary: str,
        jobs: int = 2,
        repeats: int = 1,
        grid: bool = False,
        level: Level = "ops",
    ) -> Audit:
        Path("program.py").write_text(text.lstrip("\n"))
        request = AuditRequest(parse_target(["program.py"]), timeout=240.0, level=level)
        asked = MatrixRequest(request, vary, grid=grid, repeats=repeats, jobs=jobs)
        return run_matrix(asked, Silent())

    return call
