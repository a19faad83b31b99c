"""`repro-audit doctor`: is every engine right on this machine?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from repro_audit.cli import output as out
from repro_audit.errors import EXIT_IDENTICAL, EXIT_INTERNAL

if TYPE_CHECKING:
    from rich.console import Console

    from repro_audit.engine.doctor import Check, Diagnosis


@click.command(
    epilog="""\b
Exits 0 where every engine that is there is right, 5 where one is wrong.
""",
)
@out.format_option(("text", "json"), "The answer's format: text, json.")
def doctor(*, format_: str) -> int:
    """Ask every engine and device here for known answers.

    Prints versions, how many answers each engine gave rightly, and what is
    missing and why.
    """
    from repro_audit.engine.doctor import diagnose

    found = diagnose()
    if format_ == "json":
        out.say(json.dumps(asdict(found) | {"healthy": found.healthy}, indent=2) + "\n")
    else:
        out.show_on_console(lambda console: _show(found, console))
    return EXIT_IDENTICAL if found.healthy else EXIT_INTERNAL


def _show(found: Diagnosis, console: Console) -> None:
    from rich.table import Table

    versions = Table.grid(padding=(0, 2))
    for what, version in found.versions.items():
        versions.add_row(what, version)
    engines = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("engine", "device", "known answers", ""):
        engines.add_column(column)
    for check in found.checks:
        engines.add_row(check.engine, check.device, *_words(check))
    console.print(versions)
    console.print()
    console.print(engines)
    console.print()
    wrong = [f"{check.engine} on {check.device}" for check in found.checks if check.wrong]
    if wrong:
        console.print(
            f"WRONG: {', '.join(wrong)}. Do not trust its digests: choose another with "
            "REPRO_AUDIT_ENGINE, and please report this page.",
            style="bold red",
        )
    else:
        console.print("Every engine that is here is right.", style="green")


def _words(check: Check) -> tuple[str, str]:
    if not check.present:
        return "not here", check.problem
    rights = f"{check.right} of {check.asked} right"
    return rights, check.problem or ("in use" if check.used else "")
