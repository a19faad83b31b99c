"""Where reports go: standard output, and a file that is made sure of before anything runs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from repro_audit.cli.audits import REPORT
from repro_audit.errors import (
    EXIT_DIVERGENT,
    EXIT_IDENTICAL,
    EXIT_INCONCLUSIVE,
    EXIT_INTERNAL,
    UsageError,
)
from repro_audit.model import Audit

_F = TypeVar("_F", bound=Callable[..., Any])

_EXIT_CODES = {
    "identical": EXIT_IDENTICAL,
    "within-tolerance": EXIT_IDENTICAL,
    "divergent": EXIT_DIVERGENT,
    "different-program": EXIT_INCONCLUSIVE,
    "inconclusive": EXIT_INCONCLUSIVE,
}


def report_options(command: _F) -> _F:
    """`--format`, `-o` and `--force`."""
    decorators = (
        click.option(
            "--format",
            "format_",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="The report's format.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write the report to FILE.",
        ),
        click.option("--force", "-f", is_flag=True, help="Overwrite FILE."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def exit_code(audit: Audit, *, exit_zero: bool) -> int:
    """The code a command ends with; `exit_zero` forgives a divergence, and nothing else.

    An audit that disturbed what it watched is worth nothing, whatever its verdict.
    """
    if audit.self_check is not None and audit.self_check.differing:
        return EXIT_INTERNAL
    code = _EXIT_CODES[audit.verdict]
    return EXIT_IDENTICAL if exit_zero and code == EXIT_DIVERGENT else code


def ensure_empty(directory: Path) -> None:
    """Raise UsageError unless `directory` can be made, or is there and empty."""
    if directory.is_dir() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; name a directory that is")


def ensure_writable(path: Path | None, *, force: bool) -> None:
    """Raise UsageError unless `path` (None: nothing to do) can be written as asked."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory; name a file in it")
    if path.exists() and not path.is_file():
        return
    if path.exists() and not force:
        raise UsageError(f"{path} exists; --force overwrites it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            with path.open("ab"):
                pass
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; name another place with -o"
        ) from error


def deliver(text: str, path: Path) -> None:
    """Write a rendered report to `path`. Raises UsageError where that fails."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; `repro-audit report -o FILE` writes the "
            "latest audit elsewhere"
        ) from error


def rendered(audit: Audit, format_: str) -> str:
    """`audit` in `format_`, as a file holds it."""
    from repro_audit.report.json_report import to_json
    from repro_audit.report.terminal import render_text

    return to_json(audit) if format_ == "json" else render_text(audit)


def show(audit: Audit, format_: str) -> None:
    """`audit` on standard output in `format_`; a text is fitted to the terminal.

    A reader that has gone away (`| head`) changes nothing: the verdict stands.
    """
    from repro_audit.report.terminal import console_for, render

    if format_ == "json":
        text = rendered(audit, format_)
    else:
        console = console_for(sys.stdout)
        # Rich would end the program with 1, "divergent", where the reader has gone away.
        with console.capture() as captured:
            render(audit, console)
        text = captured.get()
    say(text)


def say(text: str) -> None:
    """Write to standard output; a reader that has gone away changes nothing."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finish(audit: Audit, format_: str, path: Path | None, *, quiet: bool = False) -> None:
    """Show what a command found: on standard output, or in `path` and as text.

    What was run keeps its report with its traces.
    """
    if audit.directory is not None:
        from repro_audit.report.json_report import save

        save(audit, Path(audit.directory) / REPORT)
    if path is not None:
        deliver(rendered(audit, format_), path)
    if path is None or not quiet:
        show(audit, format_ if path is None else "text")
    if path is not None and not quiet:
        click.echo(f"  wrote   {path}")
