"""The command `repro-audit`: subcommands, the default one, and what becomes of errors."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from repro_audit import __version__
from repro_audit.cli import output as out
from repro_audit.cli.compare import compare
from repro_audit.cli.doctor import doctor
from repro_audit.cli.fingerprint import fingerprint
from repro_audit.cli.matrix import matrix
from repro_audit.cli.record import record
from repro_audit.cli.report import report
from repro_audit.cli.resume import resume
from repro_audit.cli.rules import rules
from repro_audit.cli.run import run
from repro_audit.cli.screen import screen
from repro_audit.cli.verify import verify
from repro_audit.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_SKIP,
    EXIT_STOP_BISECTING,
    EXIT_USAGE,
    ReproAuditError,
)

_DEBUG = "REPRO_AUDIT_DEBUG"


class AuditGroup(click.Group):
    """A group whose first word is a target where it is no subcommand: then `run` is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before what does not begin with a subcommand or an option of the group."""
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(EXIT_USAGE)
        if args[0] not in self.commands and args[0] not in _own_options(self, ctx):
            _refuse_misspelt(args[0], self.commands)
            args = ["run", *args]
        ctx.meta[out.WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the command and exit with its code; every failure is one message on stderr."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        # A misspelt option is no property of a commit: it must not count as a bad one.
        bisecting = "--bisect" in (sys.argv if args is None else args)
        try:
            code = super().main(
                args, prog_name or "repro-audit", complete_var, standalone_mode=False, **extra
            )
        except ReproAuditError as error:
            misused = bisecting and error.exit_code == EXIT_USAGE
            code = _fail(str(error), EXIT_STOP_BISECTING if misused else error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "repro-audit"
            wrong = EXIT_STOP_BISECTING if bisecting else error.exit_code
            code = _fail(f"{error.format_message()} See `{command} --help`.", wrong)
        except (click.Abort, KeyboardInterrupt):
            code = _fail("interrupted", EXIT_INTERRUPTED)
        except Exception as error:
            code = _internal(error)
            code = EXIT_SKIP if bisecting else code
        sys.exit(code if isinstance(code, int) else 0)


def _own_options(group: click.Group, ctx: click.Context) -> set[str]:
    return {name for option in group.get_params(ctx) for name in option.opts}


def _refuse_misspelt(word: str, commands: Collection[str]) -> None:
    """A word that is nearly a subcommand, and no file, is not taken for a target."""
    near = difflib.get_close_matches(word, commands, n=1, cutoff=0.6)
    if near and word.isalpha() and not Path(word).exists():
        raise click.UsageError(
            f"{word!r} is no subcommand and no file; did you mean `repro-audit {near[0]}`?"
        )


def _fail(message: str, code: int, label: str = "error:") -> int:
    lines = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in message)
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = click.style(label, fg="red", bold=True) if coloured else label
    click.echo(f"repro-audit: {label} {lines}", err=True)
    return code


def _internal(error: Exception) -> int:
    summary = f"{type(error).__name__}: {error}"
    if os.environ.get(_DEBUG):
        traceback.print_exception(error, file=sys.stderr)
        return _fail(summary, EXIT_INTERNAL, "internal error:")
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="repro-audit-", suffix=".traceback", delete=False, errors="replace"
        ) as file:
            traceback.print_exception(error, file=file)
        kept = f"the traceback is in {file.name}; please report it"
    except OSError:
        kept = f"run it again with {_DEBUG}=1 to see the traceback"
    return _fail(f"{summary}\n{kept}", EXIT_INTERNAL, "internal error:")


@click.group(
    name="repro-audit",
    no_args_is_help=False,
    cls=AuditGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="""\b
Examples:
  repro-audit train.py                        run it twice, name what diverges
  repro-audit train.py --steps 3 -- --lr 0.1  with arguments for the program
  repro-audit -m pkg.train --deterministic    a module, all switches on
  repro-audit report --format json            the latest audit again

\b
Exit codes: 0 reproducible, 1 divergent, 2 usage, 3 the program failed,
4 inconclusive, 5 an error of repro-audit itself, 130 interrupted; 125 with
--bisect where a commit cannot be audited.
""",
)
@click.version_option(__version__, prog_name="repro-audit", message="%(prog)s %(version)s")
def main() -> None:
    """Runs a PyTorch program twice and names the first op that diverges.

    The first word that is no subcommand is a target: `repro-audit train.py`
    is `repro-audit run train.py`.
    """


for command in (
    run,
    record,
    compare,
    verify,
    matrix,
    resume,
    screen,
    fingerprint,
    report,
    doctor,
    rules,
):
    main.add_command(command)
