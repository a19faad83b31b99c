"""The command line over fabricated audits: nothing here runs a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import repro_audit.audit
from repro_audit.audit import MatrixRequest
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.cli import main
from repro_audit.model import (
    Audit,
    Cause,
    EventCounts,
    Observed,
    Origin,
    RunInfo,
    SiteKey,
    TensorSpec,
    Tolerance,
)

IDENTICAL = Audit(
    command="run",
    target="train.py",
    mode="controlled",
    verdict="identical",
    engine="avx2",
    runs=(RunInfo("run-1", "run-1.sqlite", {"steps": 3}), RunInfo("run-2", "run-2.sqlite", {})),
    events=EventCounts(442, 442, 0),
    observed=Observed(2, 1, 0, 1),
)
DIVERGENT = replace(
    IDENTICAL,
    verdict="divergent",
    events=EventCounts(442, 265, 177),
    observed=Observed(2, 2, 1, 1),
    origin=Origin(
        key=SiteKey(0, "forward", "fc", "aten.addmm.default", 0),
        event=3,
        output=0,
        spec=TensorSpec("float32", (2, 2), "cpu"),
        call_site="train.py:9",
        kind="value",
    ),
    cause=Cause("unknown", "likely", (), ()),
)


@dataclass
class Rooms:
    """What the rooms to the left were asked, and what they answer."""

    answer: Audit | Exception | BaseException = IDENTICAL
    requests: list[AuditRequest] = field(default_factory=list)
    compared: list[Path] = field(default_factory=list)
    tolerances: list[Tolerance] = field(default_factory=list)
    recorded: list[tuple[AuditRequest, Path, bool]] = field(default_factory=list)
    matrices: list[MatrixRequest] = field(default_factory=list)

    def run_audit(self, request: AuditRequest, progress: Progress) -> Audit:
        self.requests.append(request)
        progress.start("run-1", 1, request.runs)
        progress.update(1, 147)
        progress.finish()
        return self._answer()

    def compare_traces(self, paths: Sequence[Path], tolerance: Tolerance) -> Audit:
        self.compared.extend(paths)
        self.tolerances.append(tolerance)
        return replace(self._answer(), command="compare")

    def record_run(
        self, request: AuditRequest, output: Path, force: bool, progress: Progress
    ) -> RunInfo:
        self.recorded.append((request, output, force))
        self._answer()
        return RunInfo("run-1", str(output), {})

    def run_matrix(self, request: MatrixRequest, progress: Progress) -> Audit:
        self.matrices.append(request)
        return replace(self._answer(), command="matrix")

    def _answer(self) -> Audit:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer.directory is not None:
            Path(self.answer.directory).mkdir(parents=True, exist_ok=True)
        return self.answer


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    """Stand-ins for `repro_audit.audit`."""
    rooms = Rooms()
    for name in ("run_audit", "compare_traces", "record_run", "run_matrix"):
        monkeypatch.setattr(repro_audit.audit, name, getattr(rooms, name))
    return rooms


@pytest.fixture
def audit_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rooms: Rooms
) -> Callable[..., Result]:
    """Calls `repro-audit WORD…` in an empty directory that has a `train.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("REPRO_AUDIT_DEBUG", raising=False)
    Path("train.py").write_text("import torch\n")

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    return call


@pytest.fixture
def identical() -> Audit:
    return IDENTICAL


@pytest.fixture
def divergent() -> Audit:
    return DIVERGENT
