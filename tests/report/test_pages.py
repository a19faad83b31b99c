"""Reports that are pages: HTML and Markdown, of every audit that there can be."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pytest

from repro_audit.errors import ReproAuditError
from repro_audit.model import Audit, ManifestDifference
from repro_audit.report.html import to_html
from repro_audit.report.json_report import load, save
from repro_audit.report.markdown import to_markdown
from repro_audit.report.notebook import load_report
from repro_audit.report.story import story

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """A page's elements, its visible text, and that its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(autouse=True)
def _a_short_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole one takes seconds to make; tests/browser runs it.
    monkeypatch.setattr("repro_audit.report.html._vega", lambda: "/* vega */")


def test_every_audit_is_a_page(named_audit: tuple[str, Audit]) -> None:
    audit = named_audit[1]
    page = Page(to_html(audit))
    assert story(audit).verdict.title in page.text
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    ids = {f"#{a['id']}" for _, a in page.tags if a.get("id")}
    assert links <= ids


def test_pages_say_all_that_the_text_says(named_audit: tuple[str, Audit]) -> None:
    """But for what a table of the page has, and the commands at the text's end."""
    audit = named_audit[1]
    told = story(audit)
    said = [told.subject, *(told.place.path if told.place else ())]
    said += [text for part in told.parts for one in part.told for text in one.texts]
    page = Page(to_html(audit)).text
    titled = told.place is not None or audit.matrix is not None
    for text in said[1:] if titled else said:
        assert re.sub(r"\s+", " ", text).strip() in page


def test_the_same_audit_gives_the_same_bytes(
    named_audit: tuple[str, Audit], tmp_path: Path
) -> None:
    audit = named_audit[1]
    path = tmp_path / "report.json"
    save(audit, path)
    assert to_html(audit).encode() == to_html(audit).encode() == to_html(load(path)).encode()
    assert to_markdown(audit).encode() == to_markdown(load(path)).encode()


@pytest.mark.parametrize("name", ["hostile", "overview-hostile"])
def test_hostile_names_stay_text(audits: dict[str, Audit], name: str) -> None:
    document = to_html(audits[name])
    page = Page(document)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert all(a.get("type", "application/json") == "application/json" for a in scripts)
    assert "</script> <" not in page.text
    assert "boom" in page.text
    assert "\u202e" not in document
    assert "\x1b" not in document


def test_its_size_does_not_grow_with_the_trace(audits: dict[str, Audit]) -> None:
    # The bundle of Vega takes another 0.9 MB.
    assert len(to_html(audits["overview-large"]).encode()) < 2_000_000


def test_nothing_is_drawn_of_runs_alike(audits: dict[str, Audit]) -> None:
    page = to_html(audits["overview-identical"])
    assert "/* vega */" not in page
    assert "/* vega */" in to_html(audits["overview"])
    assert "What was compared" in page


def test_a_matrix_is_a_table(audits: dict[str, Audit]) -> None:
    matrix = audits["matrix"].matrix
    assert matrix is not None
    page, plain = to_html(audits["matrix"]), to_markdown(audits["matrix"])
    for cell in matrix.cells:
        changed = [v for name, v in cell.settings.items() if v != matrix.baseline[name]]
        assert all(f"<strong>{value}</strong>" in page for value in changed)
    cells = [line for line in plain.splitlines() if line.startswith("| ") and "step 0 ·" in line]
    assert len(cells) == sum(cell.origin is not None for cell in matrix.cells)


@pytest.mark.parametrize("outcome", ["failed", "incomparable"])
def test_an_axis_without_an_answer_is_not_told_to_change_nothing(
    audits: dict[str, Audit], outcome: Literal["failed", "incomparable"]
) -> None:
    matrix = audits["matrix"].matrix
    assert matrix is not None
    assert "threads does not" in story(audits["matrix"]).subject
    cells = tuple(
        replace(cell, outcome=outcome, group=None) if cell.name == "threads=2" else cell
        for cell in matrix.cells
    )
    subject = story(replace(audits["matrix"], matrix=replace(matrix, cells=cells))).subject
    assert "threads does not" not in subject
    assert "of threads it is not known" in subject


def test_conditions_are_a_table(audits: dict[str, Audit]) -> None:
    differs = (ManifestDifference("torch.threads", {"a": 1, "b": 2}),)
    page = to_html(replace(audits["compared"], manifest_differences=differs))
    assert re.search(r"torch\.threads</th><td>1</td><td>2</td>", page)
    table = to_markdown(replace(audits["compared"], manifest_differences=differs))
    assert "| condition | a | b |\n|---|---|---|\n| torch.threads | 1 | 2 |" in table


def test_markdown_shows_the_origin_and_its_line(audits: dict[str, Audit]) -> None:
    page = to_markdown(audits["overview"], [("A heat map", "It says so.", "x-pictures/heat.svg")])
    assert page.startswith("## ✗ The runs differ\n")
    assert "> **step 0 · backward · emb · aten.index\\_put**\n" in page
    assert "> `loss = emb[tokens].mean()`\n" in page
    assert "![A heat map](x-pictures/heat.svg)" in page
    assert "| backward | emb | aten.index\\_put | 3 | 3 | 0 | 42 | 0.002 | 65,536 |" in page


def test_markdown_forms_no_markup_of_names(audits: dict[str, Audit]) -> None:
    hostile = "a|b `c` [x](http://e) *d* <img src=x> @all #1 $y$ ```\n# big"
    assert audits["overview"].origin is not None
    origin = replace(audits["overview"].origin, source=hostile)
    page = to_markdown(replace(audits["overview"], target=hostile, origin=origin))
    outside = re.sub(r"^```sh\n.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<img" not in outside
    assert "](http" not in outside
    assert "\n# big" not in page
    # A table's row has its bars, and no more.
    rows = [line for line in page.splitlines() if line.startswith("| backward")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 10


def test_a_notebook_shows_a_document_of_its_own(audits: dict[str, Audit], tmp_path: Path) -> None:
    save(audits["overview"], tmp_path / "report.json")
    shown = load_report(tmp_path)
    assert str(shown).startswith("DIVERGENT")
    assert repr(shown) == "<Report: flaky_embedding.py is divergent>"
    frame = Page(shown._repr_html_())
    ((tag, attributes),) = frame.tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == to_html(audits["overview"])
    assert load_report(tmp_path / "report.json").audit == audits["overview"]


@pytest.mark.parametrize("make", [to_html, to_markdown])
def test_a_file_of_ours_that_is_gone(
    audits: dict[str, Audit], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make
) -> None:
    monkeypatch.setattr("repro_audit.report.assets.files", lambda name: tmp_path)
    with pytest.raises(ReproAuditError, match=r"templates/.* install repro-audit again") as raised:
        make(audits["divergent"])
    assert raised.value.exit_code == 5
