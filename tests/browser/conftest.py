"""Pages in a real browser. Where there is no Chromium these tests are skipped, with the reason;
`REPRO_AUDIT_REQUIRE=browser` makes them fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from repro_audit.model import Audit
from repro_audit.report.html import to_html


@dataclass
class Shown:
    """A page in the browser, and what it wrote to the console or asked the network for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


# No longer than the module: what drives it runs an event loop in this thread, where other tests
# run theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        reason = "no chromium: apt-get install chromium"
        if "browser" in os.environ.get("REPRO_AUDIT_REQUIRE", "").split(","):
            pytest.fail(f"required, and not there: {reason}")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """Opens an audit's page, of some width and colour scheme."""
    contexts = []

    def shown(audit: Audit, *, width: int = 1280, scheme: Any = "light") -> Shown:
        path = tmp_path / "report.html"
        path.write_text(to_html(audit), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        found = Shown(context.new_page())
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(path.as_uri())
        for chart in found.page.query_selector_all("[data-chart]"):
            chart.wait_for_selector("svg")
        return found

    yield shown
    for context in contexts:
        context.close()
