"""The HTML report as its readers meet it."""

from __future__ import annotations

import time

import pytest

from repro_audit.model import Audit

from ..report.conftest import AUDITS, HOSTILE

WIDTHS = (390, 820, 1280)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "name", ["overview", "own-errors", "overview-large", "matrix", "identical"]
)
def test_a_page_is_quiet_and_fits(show, name: str, width: int) -> None:
    shown = show(AUDITS[name], width=width)
    assert shown.complaints == []
    assert len(shown.requests) == 1
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    ends = {"identical": "identical", "matrix": "change the bits"}.get(name, "differ")
    assert shown.page.locator("h1").inner_text().endswith(ends)


def rows(shown) -> list[str]:
    return [
        row.inner_text().split("\t")[2]
        for row in shown.page.locator("#sites tbody tr").all()
        if row.is_visible()
    ]


def test_rows_are_searched_filtered_and_sorted(show) -> None:
    shown = show(AUDITS["overview"])
    page = shown.page
    assert rows(shown) == ["aten.index_put", "weight", "aten.addmm", "aten.randn"]
    page.fill("#search", "EMB back")
    assert rows(shown) == ["aten.index_put"]
    assert page.inner_text("#shown") == "1 of 4 shown"
    page.fill("#search", "")
    page.check("#differing")
    assert rows(shown) == ["aten.index_put", "weight", "aten.addmm"]
    page.uncheck("#differing")

    # By the keyboard: figures begin with the largest, and what has none stands last both ways.
    page.locator("#sites th button", has_text="ULP").press("Enter")
    assert rows(shown) == ["aten.index_put", "weight", "aten.addmm", "aten.randn"]
    page.locator("#sites th button", has_text="ULP").press("Enter")
    assert rows(shown) == ["aten.addmm", "weight", "aten.index_put", "aten.randn"]
    page.locator("#sites th button", has_text="op").click()
    assert rows(shown) == ["aten.addmm", "aten.index_put", "aten.randn", "weight"]
    assert page.get_attribute("#sites th:nth-child(3)", "aria-sort") == "ascending"
    assert shown.complaints == []


def test_hovering_tells_the_figures(show) -> None:
    shown = show(AUDITS["overview"])
    field = shown.page.locator("[data-chart=heat] .mark-rect.role-mark path").nth(5)
    field.hover()
    tip = shown.page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    told = tip.inner_text()
    assert "emb" in told
    assert "3 of 4 events" in told
    assert shown.complaints == []


def test_a_hostile_name_stays_text(show) -> None:
    shown = show(AUDITS["overview-hostile"])
    assert shown.complaints == []
    assert len(shown.requests) == 1
    assert "boom" in shown.page.inner_text("header")
    assert shown.page.evaluate("document.scripts.length") == 4
    shown.page.locator("[data-chart=heat] .mark-rect.role-mark path").first.hover()
    tip = shown.page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "</script>" in tip.inner_text()
    assert HOSTILE not in shown.page.content()


def test_a_large_page_stays_quick(show) -> None:
    shown = show(AUDITS["overview-large"])
    # Far from what a person would notice as slow, for machines that do other things as well.
    began = time.perf_counter()
    shown.page.fill("#search", "op_99")
    shown.page.locator("#sites th button", has_text="events").click()
    assert shown.page.inner_text("#shown") == "11 of 1,000 shown"
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_it_stands_on(show, scheme: str) -> None:
    shown = show(AUDITS["own-errors"], scheme=scheme)
    contrast = shown.page.evaluate(CONTRAST)
    assert contrast
    worst = min(contrast, key=lambda found: found["ratio"])
    # WCAG 2.1, level AA.
    assert worst["ratio"] >= 4.5, worst


def test_it_prints_without_what_is_for_a_screen(show) -> None:
    shown = show(AUDITS["overview-large"])
    shown.page.emulate_media(media="print")
    assert not shown.page.locator("nav").is_visible()
    assert not shown.page.locator(".tools").is_visible()
    assert shown.page.locator("#sites tbody tr").last.is_visible()


def test_every_audit_is_quiet(show, audit: Audit) -> None:
    shown = show(audit)
    assert shown.complaints == []


@pytest.fixture(params=["drifted", "explained", "identical-unseen", "structural", "infinite"])
def audit(request: pytest.FixtureRequest) -> Audit:
    return AUDITS[request.param]


CONTRAST = """
() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = "p, dt, dd, h1, h2, h3, li, td, th, a, code, svg text";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || element.closest(".skip")) continue;
    const style = getComputedStyle(element);
    const ink = luminance(parts(element.closest("svg") ? style.fill : style.color));
    const paper = luminance(behind(element));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    found.push({ ratio, text: element.textContent.trim().slice(0, 40), of: element.tagName });
  }
  return found;
}
"""
