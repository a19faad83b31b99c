"""Reports in every format: where they go, what they need, and what they never overwrite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import click
import pytest

from repro_audit.cli import output as out
from repro_audit.model import UlpDivergence
from repro_audit.report.html import to_html
from repro_audit.report.json_report import load
from repro_audit.report.markdown import to_markdown

ULP = UlpDivergence(
    "float32", (4,), 4, 2, 0, 0, 0, 0, 0, 3, (0,), None, (0,), None, 5, (2, 1, 1), 1, 1, 0.1, 0.1
)


@pytest.fixture
def drawable(divergent):
    """An audit of which there is something to draw."""
    return replace(divergent, origin=replace(divergent.origin, ulp=ULP))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "find_spec", lambda name: None)


@pytest.mark.parametrize("format_", out.FORMATS)
def test_each_format_on_standard_output_and_in_a_file(
    audit_command, rooms, divergent, format_: str
) -> None:
    rooms.answer = divergent
    shown = audit_command("train.py", "--format", format_)
    assert shown.exit_code == 1
    assert shown.stdout == out.rendered(replace(divergent, words=("run", "train.py")), format_)
    written = audit_command("train.py", "--format", format_, "-o", "report.any", "--quiet")
    assert written.exit_code == 1
    assert Path("report.any").read_text(encoding="utf-8") == shown.stdout


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("train.py --steps 3 -f -- --force -o x", "run train.py --steps 3 -- --force -o x"),
        ("train.py -o a --format json --seed=4 --force", "run train.py --seed=4"),
        ("--as-is train.py -o a --format=json -q", "run --as-is train.py"),
        ("compare a b --ulp-tol 4 --exit-zero --output c", "compare a b --ulp-tol 4"),
    ],
)
def test_the_words_that_ask_for_the_same_again(
    audit_command, rooms, divergent, words: str, kept: str
) -> None:
    rooms.answer = replace(divergent, directory=".repro-audit/0003-train")
    Path("a").touch()
    Path("b").touch()
    asked, dashes, program = words.partition(" -- ")
    audit_command(*f"{asked} --force{dashes}{program}".split())
    found = load(Path(".repro-audit/0003-train/report.json"))
    assert " ".join(found.words) == kept
    page = to_markdown(found)
    assert f"```sh\nrepro-audit {kept}\n```" in page
    # What is printed is taken: a copy of the line asks for the same.
    rooms.requests.clear()
    audit_command(*found.words)
    assert load(Path(".repro-audit/0003-train/report.json")).words == found.words


def test_an_unknown_format_names_those_there_are(audit_command, rooms) -> None:
    result = audit_command("train.py", "--format", "pdf")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in out.FORMATS)
    assert rooms.requests == []


@pytest.mark.usefixtures("without_pictures")
def test_html_without_what_draws_is_refused_before_anything_runs(audit_command, rooms) -> None:
    result = audit_command("train.py", "--format", "html", "-o", "report.html")
    assert result.exit_code == 2
    assert "pip install 'repro-audit[report]'" in result.stderr
    assert rooms.requests == []
    assert not Path("report.html").exists()


def test_html_does_not_flood_a_terminal(audit_command, rooms, monkeypatch) -> None:
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(out, "sys", SimpleNamespace(stdout=terminal))
    result = audit_command("train.py", "--format", "html")
    assert result.exit_code == 2
    assert "-o report.html" in result.stderr
    assert rooms.requests == []


def test_markdown_in_a_file_has_its_pictures_beside_it(audit_command, rooms, drawable) -> None:
    rooms.answer = drawable
    words = ("train.py", "--format", "markdown", "-o", "the report.md")
    assert audit_command(*words).exit_code == 1
    picture = Path("the report-pictures/ulp.svg")
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    page = Path("the report.md").read_text(encoding="utf-8")
    assert "](the%20report-pictures/ulp.svg)" in page
    first = page, picture.read_bytes()

    Path("the report.md").unlink()
    again = audit_command(*words)
    assert again.exit_code == 2
    assert "the report-pictures, for the pictures of the report.md, exists" in again.stderr
    assert len(rooms.requests) == 1
    assert audit_command(*words, "--force").exit_code == 1
    assert (Path("the report.md").read_text(encoding="utf-8"), picture.read_bytes()) == first


@pytest.mark.usefixtures("without_pictures")
def test_markdown_without_what_draws_has_no_pictures(audit_command, rooms, drawable) -> None:
    rooms.answer = drawable
    assert audit_command("train.py", "--format", "markdown", "-o", "report.md").exit_code == 1
    asked = replace(drawable, words=("run", "train.py"))
    assert Path("report.md").read_text(encoding="utf-8") == to_markdown(asked)
    assert not Path("report-pictures").exists()


def test_a_page_is_opened_in_a_browser(audit_command, rooms, divergent, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", lambda place: opened.append(place) or 0)
    kept = replace(divergent, directory=".repro-audit/0003-train")
    rooms.answer = kept
    audit_command("train.py")
    result = audit_command("report", "3", "--format", "html", "--open")
    assert result.exit_code == 0, result.stderr
    (place,) = opened
    assert Path(place).name == "0003-train.html"
    asked = replace(kept, words=("run", "train.py"))
    assert Path(place).read_text(encoding="utf-8") == to_html(asked)
    assert audit_command("report", "--format", "html", "--open", "-o", "page.html").exit_code == 0
    assert opened[1] == "page.html"


def test_only_a_page_is_opened(audit_command, rooms, divergent, monkeypatch) -> None:
    rooms.answer = replace(divergent, directory=".repro-audit/0003-train")
    audit_command("train.py")
    result = audit_command("report", "--open")
    assert result.exit_code == 2
    assert "--format html" in result.stderr
    monkeypatch.setattr(click, "launch", lambda place: 1)
    failed = audit_command("report", "--format", "html", "--open", "-o", "page.html")
    assert failed.exit_code == 2
    assert "open page.html yourself" in failed.stderr
    assert Path("page.html").exists()
