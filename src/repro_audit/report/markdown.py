"""The Markdown report, for a pull request or an issue; with pictures where it is a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from repro_audit.model import Audit, Overview
from repro_audit.report import pages
from repro_audit.report.assets import environment
from repro_audit.report.phrases import number, printable
from repro_audit.report.story import commands, story

_SITES_SHOWN = 20
_ZERO_WIDTH = "\u200b"


def to_markdown(audit: Audit, drawn: Sequence[tuple[str, str, str]] = ()) -> str:
    """`audit` as GitHub's Markdown; `drawn` are pictures: title, what it says, path of the file.

    What comes from the program is shown as it is: it forms no markup, link or mention.
    """
    told = story(audit)
    # What is no HTML is escaped by the filters.
    filled = environment(escaped=False)
    filled.filters.update(md=escaped, code=code, fenced=_fenced)
    page = filled.get_template("report.md.j2").render(
        command=audit.command,
        target=printable(audit.target),
        verdict=told.verdict,
        subject=told.subject,
        place=told.place,
        tiles=list(pages.tiles(audit)),
        parts=told.parts,
        pictures=[{"title": title, "says": says, "path": path} for title, says, path in drawn],
        sites=_sites(audit.overview),
        cells=pages.cells(audit.matrix),
        differences=pages.differences(audit),
        again=list(commands(audit)),
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _sites(overview: Overview | None) -> dict[str, Any] | None:
    """The first that differ."""
    table = pages.sites(overview)
    rows = [row for row in table["rows"] if row["differs"]] if table is not None else []
    if table is None or not rows:
        return None
    more = number(len(rows) - _SITES_SHOWN) if len(rows) > _SITES_SHOWN else None
    return {**table, "rows": rows[:_SITES_SHOWN], "more": more}


def escaped(text: object) -> str:
    """Text that GitHub's Markdown shows as it is: no markup, link, mention or emoji of it."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#+!|~&$])", r"\\\1", str(text))
    return re.sub(r"@|://|www(?=\.)|\\#|:(?=[\w+-]+:)", rf"\g<0>{_ZERO_WIDTH}", escaped)


def code(text: object) -> str:
    """Text in code's type, whatever backticks it has."""
    said = str(text)
    ticks = "`" * (max(map(len, re.findall("`+", said)), default=0) + 1)
    space = " " if said.startswith("`") or said.endswith("`") else ""
    return f"{ticks}{space}{said}{space}{ticks}"


def _fenced(text: object) -> str:
    """A line of a block of code that does not end it."""
    return str(text).replace("```", "`\u200b``")
