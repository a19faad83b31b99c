"""A disk without room, here a limit on the size of files: what was there stays, and it is told."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest

from repro_audit.audit import directories
from repro_audit.model import Target

from .conftest import COMMAND, environment


def limited(size: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that can write no file larger than so many bytes: as on a full disk."""
    return subprocess.run(
        [*COMMAND, *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


def test_a_report_is_written_whole_or_not_at_all(audit, program, tmp_path: Path) -> None:
    program("train.py", "import torch\ntorch.ones(3).sum()\n")
    assert audit("record", "train.py", "-o", "a.audit").code == 0
    words = "compare", "a.audit", "a.audit", "--format", "json", "-o", "report.json"
    (tmp_path / "report.json").write_text("old")
    result = limited(100, *words, "--force")
    assert (result.returncode, result.stdout) == (2, "")
    assert "cannot write report.json: File too large; name another place" in result.stderr
    assert (tmp_path / "report.json").read_text() == "old"
    (tmp_path / "report.json").unlink()
    before = sorted(tmp_path.iterdir())
    assert limited(100, *words).returncode == 2
    assert sorted(tmp_path.iterdir()) == before
    # A link stays one, and a file its mode.
    (tmp_path / "there.json").touch(mode=0o640)
    (tmp_path / "report.json").symlink_to("there.json")
    assert audit(*words, "--force").code == 0
    assert json.loads((tmp_path / "there.json").read_text())["verdict"] == "identical"
    assert (tmp_path / "there.json").stat().st_mode & 0o777 == 0o640


def test_no_room_for_a_run(program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program("train.py", "import torch\ntorch.ones(3).sum()\n")
    result = limited(100, "train.py")
    assert (result.returncode, result.stdout) == (2, "")
    assert "cannot write to .repro-audit/0001-train: File too large. Make room" in result.stderr
    assert "please report" not in result.stderr


def test_what_a_full_disk_left_empty_is_written_later(tmp_path: Path) -> None:
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits" / ".gitignore").touch()
    directories.create(tmp_path / "audits", Target("script", "train.py"))
    assert (tmp_path / "audits" / ".gitignore").read_text() == "*\n"
