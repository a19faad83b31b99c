"""Where reports go: standard output, and a file that is made sure of before anything runs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from repro_audit.cli.audits import REPORT
from repro_audit.cli.progress import progress
from repro_audit.errors import (
    EXIT_DIVERGENT,
    EXIT_IDENTICAL,
    EXIT_INCONCLUSIVE,
    EXIT_INTERNAL,
    UsageError,
)
from repro_audit.model import Audit, Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from repro_audit.audit import Progress

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS = ("text", "json", "markdown", "html", "junit", "github")
# Where a command's context has the words that it was given.
WORDS = "repro_audit.words"
# What they say of the report, and not of the audit: names that take a value, and that do not.
_VALUED, _ALONE = ("--format", "--output", "-o"), ("--force", "-f", "--quiet", "-q", "--exit-zero")
# What draws: it comes with an extra.
_DRAWING = ("altair", "vl_convert")

_EXIT_CODES = {
    "identical": EXIT_IDENTICAL,
    "within-tolerance": EXIT_IDENTICAL,
    "divergent": EXIT_DIVERGENT,
    "different-program": EXIT_INCONCLUSIVE,
    "inconclusive": EXIT_INCONCLUSIVE,
}


def format_option(formats: Sequence[str], help_: str) -> Callable[[_F], _F]:
    """`--format` of one of `formats`, by default of text."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default="text",
        show_default=True,
        metavar="FORMAT",
        help=help_,
    )


def file_options(command: _F) -> _F:
    """`-o` and `--force`."""
    decorators = (
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


def report_options(command: _F) -> _F:
    """`--format`, `-o` and `--force`."""
    said = f"The report's format: {', '.join(FORMATS)}."
    return format_option(FORMATS, said)(file_options(command))


def exit_code(audit: Audit, *, exit_zero: bool) -> int:
    """The code a command ends with; `exit_zero` forgives a divergence, and nothing else.

    An audit that disturbed what it watched is worth nothing, whatever its verdict.
    """
    if audit.self_check is not None and audit.self_check.differing:
        return EXIT_INTERNAL
    return code_of(audit.verdict, exit_zero=exit_zero)


def code_of(verdict: Verdict, *, exit_zero: bool) -> int:
    """The code that a verdict ends a command with."""
    code = _EXIT_CODES[verdict]
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


def ensure_report(format_: str, path: Path | None, *, force: bool) -> None:
    """Raise UsageError unless a report in `format_` can be made, and written to `path` as asked."""
    ensure_writable(path, force=force)
    if format_ == "html":
        missing = [name for name in _DRAWING if find_spec(name) is None]
        if missing:
            raise UsageError(
                "--format html draws its pictures with Vega-Altair, which is not installed: "
                "pip install 'repro-audit[report]'"
            )
        if path is None and sys.stdout.isatty():
            raise UsageError("--format html makes a page: name a file for it, as -o report.html")
    if format_ == "markdown" and path is not None and _draws_beside(path):
        folder = _pictures_of(path)
        if folder.exists() and not force:
            raise UsageError(f"{folder}, for the pictures of {path}, exists; --force overwrites it")


def write(text: str, path: Path) -> None:
    """Write what a command found to `path`; raises UsageError where that fails."""
    from repro_audit.report.files import write_whole

    try:
        write_whole(text, path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; name another place with -o"
        ) from error


def deliver(audit: Audit, format_: str, path: Path) -> None:
    """Write the report of `audit` to `path`, and beside it the pictures that Markdown shows.

    Raises UsageError where that fails.
    """
    from repro_audit.report.files import write_whole

    drawn: list[tuple[str, str, str]] = []
    try:
        if format_ == "markdown" and _draws_beside(path):
            drawn = _draw(audit, _pictures_of(path))
        write_whole(rendered(audit, format_, drawn), path)
    except OSError as error:
        way_out = "name another place with -o"
        if audit.directory is not None:
            way_out = "`repro-audit report -o FILE` writes the latest audit elsewhere"
        raise UsageError(f"cannot write {path}: {error.strerror}; {way_out}") from error


def _draws_beside(path: Path) -> bool:
    """True where pictures can be made, and `path` is a file that they can lie beside."""
    plain = path.is_file() or not path.exists()
    return plain and not any(find_spec(name) is None for name in _DRAWING)


def _pictures_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}-pictures")


def _draw(audit: Audit, folder: Path) -> list[tuple[str, str, str]]:
    """Draw what can be drawn into `folder`: title, what it says, and where, of each picture."""
    from repro_audit.report.charts import pictures, static

    drawn = []
    for picture in pictures(audit, width=720):
        folder.mkdir(exist_ok=True)
        place = folder / f"{picture.name}.svg"
        place.write_text(static(picture), encoding="utf-8", newline="\n")
        drawn.append(
            (picture.title, picture.says, f"{quote(os.fsencode(folder.name))}/{place.name}")
        )
    return drawn


def rendered(audit: Audit, format_: str, drawn: Sequence[tuple[str, str, str]] = ()) -> str:
    """`audit` in `format_`, as a file holds it; Markdown shows the pictures `drawn`."""
    if format_ == "json":
        from repro_audit.report.json_report import to_json

        return to_json(audit)
    if format_ == "html":
        from repro_audit.report.html import to_html

        return to_html(audit)
    if format_ == "markdown":
        from repro_audit.report.markdown import to_markdown

        return to_markdown(audit, drawn)
    if format_ == "junit":
        from repro_audit.report.junit import to_junit

        return to_junit(audit)
    if format_ == "github":
        from repro_audit.report.github import to_github

        return to_github(audit)
    from repro_audit.report.terminal import render_text

    return render_text(audit)


def show(audit: Audit, format_: str) -> None:
    """`audit` on standard output in `format_`; a text is fitted to the terminal.

    A reader that has gone away (`| head`) changes nothing: the verdict stands.
    """
    if format_ != "text":
        say(rendered(audit, format_))
        return
    from repro_audit.report.terminal import render

    show_on_console(lambda console: render(audit, console))


def show_on_console(render: Callable[[Console], None]) -> None:
    """What `render` prints, on standard output, fitted to the terminal."""
    from repro_audit.report.terminal import console_for

    console = console_for(sys.stdout)
    # Rich would end the program with 1, "divergent", where the reader has gone away.
    with _writing(), console.capture() as captured:
        render(console)
    say(captured.get())


def of_the_audit() -> Iterator[str]:
    """The words that the current command was given, but for those on its report."""
    context = click.get_current_context(silent=True)
    words = iter(() if context is None else context.meta.get(WORDS, ()))
    for word in words:
        if word == "--":
            yield word
            yield from words
            return
        name, attached, _ = word.partition("=")
        if name in _VALUED:
            if not attached:
                next(words, None)
        elif word not in _ALONE:
            yield word


def say(text: str) -> None:
    """Write to standard output; a reader that has gone away changes nothing.

    Raises UsageError where there is no standard output, or no room for it.
    """
    if sys.stdout is None:
        raise UsageError("standard output is closed; send it to a file, or to a terminal")
    with _writing():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What is still buffered would raise again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(
                f"cannot write to standard output: {error.strerror}; send it elsewhere"
            ) from error


def answer(
    ask: Callable[[Progress], Audit],
    format_: str,
    path: Path | None,
    *,
    quiet: bool,
    exit_zero: bool,
) -> int:
    """Ask for an audit, show how far it is, hand its report out; the exit code.

    Of one that is interrupted what it had found is handed out before its error is raised.
    """
    from repro_audit.audit import InterruptedAuditError

    silent = quiet or (format_ == "json" and path is None)
    try:
        with progress(quiet=silent) as shown:
            audit = ask(shown)
    except InterruptedAuditError as error:
        finish(error.audit, format_, path, quiet=quiet)
        raise
    finish(audit, format_, path, quiet=quiet)
    return exit_code(audit, exit_zero=exit_zero)


def finish(audit: Audit, format_: str, path: Path | None, *, quiet: bool = False) -> None:
    """Show what a command found: on standard output, or in `path` and as text.

    What was run keeps its report with its traces.
    """
    audit = replace(audit, words=tuple(of_the_audit()))
    if audit.directory is not None:
        from repro_audit.report.json_report import save

        kept = Path(audit.directory) / REPORT
        try:
            save(audit, kept)
        except OSError as error:
            # What was found is not lost with it.
            show(audit, format_ if path is None else "text")
            said = f"cannot write {kept}: {error.strerror}. Make room there."
            raise UsageError(said) from error
    if path is not None:
        deliver(audit, format_, path)
    if path is None or not quiet:
        show(audit, format_ if path is None else "text")
    if path is not None and not quiet:
        click.echo(f"  wrote   {path}")
