"""`repro-audit run --bisect` as `git bisect run` calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "repro_audit", "run", "--bisect", "--quiet", "train.py"]
CLEAN = "import torch\ntorch.manual_seed(0)\nprint(torch.randn(3).sum())\n"
BROKEN = CLEAN + "raise SystemExit('no data')\n"
FAULTY = CLEAN + "import os\ntorch.tensor([*os.urandom(8)]).sin()\n"


def git(directory: Path, *words: str) -> str:
    """What git says."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=directory, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_commit_that_broke_it_is_found(tmp_path: Path) -> None:
    """Good, one that fails, good, bad, bad: the one that fails is skipped."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text(".repro-audit\n")
    versions = [CLEAN, BROKEN, f"# again\n{CLEAN}", FAULTY, f"# more\n{FAULTY}"]
    for number, text in enumerate(versions):
        (tmp_path / "train.py").write_text(text)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", f"version {number}")
    git(tmp_path, "bisect", "start", "HEAD", "HEAD~4")
    said = git(tmp_path, "bisect", "run", *COMMAND)
    assert "version 3" in said.partition("is the first bad commit")[2], said


@pytest.mark.parametrize(
    ("text", "option", "code"),
    [
        (BROKEN, [], 125),
        (None, [], 125),
        ("print('no torch')", [], 125),
        (CLEAN, ["--no-such-option"], 128),
        (CLEAN, ["--exit-zero"], 128),
    ],
)
def test_exit_codes(tmp_path: Path, text: str | None, option: list[str], code: int) -> None:
    if text is not None:
        (tmp_path / "train.py").write_text(text)
    done = subprocess.run([*COMMAND, *option], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr or done.stdout
