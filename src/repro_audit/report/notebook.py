"""A finished audit in a notebook: it shows itself."""

from __future__ import annotations

import html
from pathlib import Path

from repro_audit.model import Audit
from repro_audit.report.json_report import load
from repro_audit.report.terminal import render_text


class Report:
    """A finished audit, `audit`; a notebook shows its page, `str` is the text report."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    def __str__(self) -> str:
        return render_text(self.audit)

    def __repr__(self) -> str:
        return f"<Report: {self.audit.target} is {self.audit.verdict}>"

    def _repr_html_(self) -> str:
        try:
            from repro_audit.report.html import to_html
        except ImportError:
            said = f"{self}\nA page is shown with: pip install 'repro-audit[report]'"
            return f"<pre>{html.escape(said)}</pre>"
        # A document of its own: its styles and scripts are not the notebook's.
        page = html.escape(to_html(self.audit))
        return f'<iframe srcdoc="{page}" title="repro-audit" width="100%" height="720"></iframe>'


def load_report(path: str | Path) -> Report:
    """The audit in a JSON report, or in an audit's directory, such as `.repro-audit/0003-train`.

    To be shown in a notebook it needs the extra `report`. Raises UsageError where there is none,
    InconclusiveError where it is of another version.
    """
    place = Path(path)
    return Report(load(place / "report.json" if place.is_dir() else place))
