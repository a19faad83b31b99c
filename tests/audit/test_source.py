"""The line of the program that an origin is told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repro_audit.audit.source import with_source
from repro_audit.model import CausedBy, Origin, SiteKey, Target

ORIGIN = Origin(
    key=SiteKey(0, "forward", "fc", "aten.mm.default", 0),
    event=1,
    output=0,
    spec=None,
    call_site="train.py:2",
    kind="value",
)


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "train.py").write_text(
        "import torch\n    y = a @ b  # mm\n\n" + "x" * 999
    )
    monkeypatch.chdir(tmp_path / "here")
    return Target("script", "../there/train.py")


@pytest.mark.parametrize(
    ("site", "text"),
    [
        ("train.py:2", "y = a @ b  # mm"),
        ("train.py:3", None),
        ("train.py:4", "x" * 200),
        ("train.py:99", None),
        ("gone.py:1", None),
        ("train.py", None),
        (None, None),
    ],
)
def test_the_line_beside_the_program(program: Target, site: str | None, text: str | None) -> None:
    assert with_source(replace(ORIGIN, call_site=site), program).source == text


def test_of_two_files_of_that_name_none_is_shown(program: Target) -> None:
    Path("train.py").write_text("\nnearer\n")
    assert with_source(ORIGIN, program).source is None
    # What is below the working directory is written relative to it.
    assert with_source(ORIGIN, Target("script", "train.py")).source == "nearer"


def test_a_packages_line_is_looked_for_among_packages(
    program: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a file of the program's that has the same name."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "site"))
    of_package = replace(ORIGIN, called_from="main.py:1")
    assert with_source(of_package, program).source is None
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "train.py").write_text("\nof the package\n")
    assert with_source(of_package, program).source == "of the package"
    assert with_source(ORIGIN, program).source == "y = a @ b  # mm"


def test_of_a_backward_op_the_forward_ops_line(program: Target) -> None:
    caused = replace(ORIGIN, caused_by=CausedBy("aten.index.Tensor", "emb", "train.py:1"))
    assert with_source(caused, program).source == "import torch"
    # Of a custom Function, or a hook, the line is its own.
    assert with_source(replace(caused, backward_code=True), program).source == "y = a @ b  # mm"
    elsewhere = replace(caused, caused_by=CausedBy("aten.index.Tensor", "emb", None))
    assert with_source(elsewhere, program).source is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xfe\n\xff\n", None),
        (b"# coding: latin-1\ny = '\xe9'\n", "y = 'é'"),
        (b"import os\x0c\ny = 1\n", "y = 1"),
    ],
)
def test_files_are_read_as_python_reads_them(data: bytes, text: str | None) -> None:
    Path("train.py").write_bytes(data)
    assert with_source(ORIGIN, Target("script", "train.py")).source == text
