"""`repro-audit fingerprint`, and `compare` of checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import repro_audit as ra
from repro_audit.cli import main

FLOATS = np.linspace(-1, 1, 12, dtype=np.float32)
SCHEMA = json.loads(files("repro_audit.report").joinpath("schema/fingerprints-1.json").read_text())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls `repro-audit WORD…` in a directory with checkpoints `a`, its equal `b`, and `c`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, held in (("a", FLOATS), ("b", FLOATS), ("c", np.nextafter(FLOATS, np.float32(9)))):
        np.savez(f"{name}.npz", w=held)

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    return call


def test_fingerprints_of_files(command) -> None:
    digest = ra.fingerprint({"w": FLOATS}).composite
    answer = command("fingerprint", "a.npz", "b.npz")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout == f"{digest}  a.npz\n{digest}  b.npz\n"
    one = ra.fingerprint(FLOATS).digest
    assert command("fingerprint", "-t", "a.npz").stdout == (
        f"{one}  float32[12]  w\n{digest}  a.npz\n"
    )


def test_fingerprints_that_are_kept(command) -> None:
    assert command("fingerprint", "a.npz", "--format", "json", "-o", "kept.json").exit_code == 0
    document = json.loads(Path("kept.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert command("compare", "kept.json", "b.npz").exit_code == 0
    answer = command("compare", "kept.json", "c.npz")
    assert answer.exit_code == 1
    assert "differs w float32[12]" in answer.stdout
    answer = command("compare", "kept.json", "c.npz", "--ulp-tol", "4")
    assert answer.exit_code == 4
    assert "--ulp-tol needs the checkpoint itself" in answer.stderr
    Path("kept.json").write_text(Path("kept.json").read_text().replace("float32", "float16"))
    answer = command("compare", "kept.json", "b.npz")
    assert answer.exit_code == 4
    assert "was changed after it was written" in answer.stderr


def test_fingerprints_of_several_are_no_side(command) -> None:
    command("fingerprint", "a.npz", "c.npz", "--format", "json", "-o", "kept.json")
    answer = command("compare", "kept.json", "a.npz")
    assert answer.exit_code == 2
    assert "keep each in a file of its own" in answer.stderr


def test_nothing_is_overwritten_unasked(command) -> None:
    Path("there").write_text("mine")
    for words in (("fingerprint", "a.npz"), ("compare", "a.npz", "b.npz")):
        answer = command(*words, "-o", "there")
        assert (answer.exit_code, Path("there").read_text()) == (2, "mine")
        assert "--force overwrites it" in answer.stderr
        assert command(*words, "-o", "there", "-f").exit_code == 0
        assert Path("there").read_text() != "mine"
        Path("there").write_text("mine")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("a.npz", "b.npz"), 0),
        (("a.npz", "c.npz"), 1),
        (("a.npz", "c.npz", "--exit-zero"), 0),
        (("a.npz", "c.npz", "--ulp-tol", "0"), 1),
        (("a.npz", "c.npz", "--ulp-tol", "1"), 0),
        (("a.npz", "c.npz", "--ignore", "w"), 4),
        (("a.npz", "b.npz", "c.npz"), 1),
        (("a.npz", "absent.npz"), 2),
        (("a.npz",), 2),
    ],
)
def test_exit_codes(command, words, code) -> None:
    assert command("compare", *words).exit_code == code


def test_formats(command) -> None:
    document = json.loads(command("compare", "a.npz", "c.npz", "--format", "json").stdout)
    assert (document["verdict"], document["pairs"][0]["identical"]) == ("divergent", 0)
    assert command("compare", "a.npz", "c.npz", "--format", "markdown").stdout.startswith("## ")
    answer = command("compare", "a.npz", "c.npz", "--format", "junit")
    assert answer.exit_code == 2
    assert "text, json, markdown are there" in answer.stderr
    answer = command("compare", "a.npz", "c.npz", "-o", "found.json", "--format", "json")
    assert answer.stdout.startswith("DIVERGENT")
    assert json.loads(Path("found.json").read_text()) == document


def test_traces_and_checkpoints_are_not_compared(command) -> None:
    Path("trace").touch()
    answer = command("compare", "a.npz", "trace")
    assert answer.exit_code == 2
    assert "a.npz is a checkpoint and trace is none" in answer.stderr
    answer = command("compare", "trace", "trace", "--ignore", "x")
    assert answer.exit_code == 2
    assert "these are traces" in answer.stderr
    answer = command("compare", "a.npz", "b.npz", "--rounding")
    assert answer.exit_code == 2
    assert "--ulp-tol N" in answer.stderr


def test_an_audit_that_keeps_tensors_is_an_audit(command) -> None:
    Path("audit/reproducer").mkdir(parents=True)
    Path("audit/run-1.sqlite").touch()
    Path("audit/reproducer/a.npz").write_bytes(Path("a.npz").read_bytes())
    answer = command("compare", "audit", "audit")
    assert answer.exit_code == 4
    assert "audit/run-1.sqlite" in answer.stderr


def test_a_damaged_file_is_said_so(command) -> None:
    Path("d.npz").write_bytes(Path("a.npz").read_bytes()[:-30])
    for words in (("fingerprint", "d.npz"), ("compare", "a.npz", "d.npz")):
        answer = command(*words)
        assert answer.exit_code == 4
        assert "d.npz" in answer.stderr
        assert "error:" in answer.stderr


def test_torch_is_not_imported(command) -> None:
    script = (
        "import sys\nfrom repro_audit.cli import main\n"
        "try:\n    main(['compare', 'a.npz', 'c.npz'])\n"
        "except SystemExit as end:\n    assert end.code == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_what_is_empty_holds_nothing_to_compare(command, tmp_path: Path) -> None:
    for name, held in (("e", {}), ("f", {}), ("g", {"a": {}})):
        torch.save(held, tmp_path / f"{name}.pt")
    answer = command("compare", "e.pt", "f.pt")
    assert answer.exit_code == 4
    assert "there is nothing in them to compare" in answer.stdout
    assert command("compare", "g.pt", "g.pt").exit_code == 0
    assert command("compare", "e.pt", "g.pt").exit_code == 1
