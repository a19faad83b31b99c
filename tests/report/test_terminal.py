"""The terminal report, byte for byte against kept pages, and at every width."""

from __future__ import annotations

import os
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from repro_audit.model import Audit
from repro_audit.report.page import Page, glued
from repro_audit.report.terminal import console_for, next_command, render, render_text

GOLD = Path(__file__).with_name("gold")


def test_page_is_the_kept_one(named_audit: tuple[str, Audit]) -> None:
    """`UPDATE_GOLD=1 pytest tests/report` writes the pages anew, to be read in the diff."""
    name, audit = named_audit
    kept = GOLD / f"{name}.txt"
    page = render_text(audit)
    if os.environ.get("UPDATE_GOLD"):
        kept.write_text(page, encoding="utf-8")
    assert page.encode() == kept.read_bytes()


def test_every_kept_page_has_its_audit(audits: dict[str, Audit]) -> None:
    assert {path.stem for path in GOLD.iterdir()} == set(audits)


@pytest.mark.parametrize("width", [40, 60, 79, 80, 120, 300])
def test_no_line_is_wider_than_the_terminal(named_audit: tuple[str, Audit], width: int) -> None:
    for line in render_text(named_audit[1], width).splitlines():
        assert len(line) <= min(width, 100)
        assert line == line.rstrip()


def test_nothing_of_the_program_reaches_the_terminal_raw(audits: dict[str, Audit]) -> None:
    page = render_text(audits["hostile"])
    assert all(c.isprintable() or c == "\n" for c in page)
    assert "[red]boom[/red]" in page.replace("\n", "")


def test_no_colour_where_it_is_unwanted(
    audits: dict[str, Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = _Terminal()
    render(audits["divergent"], console_for(terminal))
    assert "\x1b[1;31mDIVERGENT" in terminal.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    terminal = _Terminal()
    render(audits["divergent"], console_for(terminal))
    assert "\x1b[1;31m" not in terminal.getvalue()
    assert "31m" not in terminal.getvalue()

    file = StringIO()
    render(audits["divergent"], console_for(file))
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        (".repro-audit/0003-train", "repro-audit report 0003 --format json"),
        ("/home/a b/.repro-audit/0003-x", "repro-audit report 0003 --format json"),
        ("kept/0003-train", "repro-audit report kept/0003-train --format json"),
        ("my audits/x", "repro-audit report 'my audits/x' --format json"),
    ],
)
def test_next_command(audits: dict[str, Audit], directory: str, expected: str) -> None:
    assert next_command(replace(audits["divergent"], directory=directory)) == expected


class _Terminal(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_what_is_tolerated_has_its_place_too(audits: dict[str, Audit]) -> None:
    told = render_text(audits["drifted-within"])
    assert "first   step 0 · backward · emb · aten.index_put" in told
    assert "177 of 442 events differ" in told


def test_what_is_longer_than_a_line_breaks_between_words() -> None:
    shown = StringIO()
    page = Page(Console(file=shown, width=40))
    said = "2 empty tensors until they were written to"
    page.labelled("unseen", glued(said))
    assert shown.getvalue().split() == ["unseen", *said.split()]
