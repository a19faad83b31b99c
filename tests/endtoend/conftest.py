"""Real audits of real programs, through the command line, in a directory of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(
    resources.files("repro_audit.report").joinpath("schema/report-1.json").read_text("utf-8")
)


@dataclass(frozen=True)
class Result:
    """What `repro-audit run --format json` said, and its exit code."""

    code: int
    report: dict[str, Any]

    @property
    def origin(self) -> dict[str, Any]:
        """The first divergence; there must be one."""
        found = self.report["first_divergence"]
        assert found is not None, self.report["verdict"]
        return found


@pytest.fixture
def audit(tmp_path: Path, command_line: Callable[..., Any]) -> Callable[..., Result]:
    """Audit a program of the repository: `audit("examples/lstm.py", "--as-is", NAME=value)`."""

    def run(program: str, *options: str, **environment: str) -> Result:
        done = command_line(
            ["run", str(ROOT / program), *options, "--format", "json"],
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=280,
        )
        assert done.returncode in {0, 1}, done.stderr
        report = json.loads(done.stdout)
        jsonschema.validate(report, SCHEMA)
        return Result(done.returncode, report)

    return run
