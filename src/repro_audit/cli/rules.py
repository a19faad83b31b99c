"""`repro-audit rules`: what do the codes of warnings and the classes of causes mean?"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from repro_audit.cli import output as out
from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from repro_audit.model.rules import Rule


@click.command(
    epilog="""\b
Examples:
  repro-audit rules
  repro-audit rules RA103 kernel-selection
""",
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@out.format_option(("text", "json", "markdown"), "The answer's format: text, json, markdown.")
def rules(*, names: tuple[str, ...], format_: str) -> int:
    """Say what warnings (RA101, ...) and classes of causes mean, and what to do.

    NAME is a code or a class; by default all of them.
    """
    from repro_audit.model.rules import CAUSES, WARNINGS

    known = {rule.name.lower(): rule for rule in (*WARNINGS, *CAUSES)}
    for name in names:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
            hint = f" Is it {known[near[0]].name}?" if near else ""
            raise UsageError(f"there is no rule {name}.{hint} `repro-audit rules` lists them all")
    wanted = dict.fromkeys(name.lower() for name in names)
    asked = [known[name] for name in wanted] or list(known.values())
    if format_ == "json":
        out.say(json.dumps([asdict(rule) for rule in asked], indent=2) + "\n")
    elif format_ == "markdown":
        out.say(_table(asked))
    else:
        out.show_on_console(lambda console: _show(asked, console))
    return 0


def _table(rules: Sequence[Rule]) -> str:
    rows = [f"| {rule.name} | {rule.means} | {rule.remedy} |" for rule in rules]
    return "\n".join(["| name | meaning | what to do |", "|---|---|---|", *rows]) + "\n"


def _show(rules: Sequence[Rule], console: Console) -> None:
    from repro_audit.report.page import Page

    page = Page(console)
    for rule in rules:
        page.paragraph("", indent=0, lead=rule.name, style="bold")
        page.paragraph(rule.means, indent=2)
        page.labelled("try", rule.remedy)
