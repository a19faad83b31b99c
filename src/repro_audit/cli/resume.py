"""`repro-audit resume`: does a resumed run equal one that was never interrupted?"""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import click

from repro_audit.cli import output as out
from repro_audit.cli.program import ProgramCommand, program_options, request_of
from repro_audit.errors import UsageError


def _words(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    try:
        return () if value is None else tuple(shlex.split(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} cannot be split into words: {error}") from error


@click.command(
    cls=ProgramCommand,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  repro-audit resume train.py --at 4 --again '--resume last.pt' -- --lr 0.1
  repro-audit resume train.py --at 4                    it resumes by itself
  repro-audit resume train.py --first '--epochs 1' --again '--resume last.pt'
""",
)
@program_options()
@click.option(
    "--at",
    type=click.IntRange(1),
    metavar="STEP",
    help="End the first part as it is about to make this step, counted from 0: what comes between "
    "two steps, such as saving, has then been done.",
)
@click.option(
    "--first",
    callback=_words,
    metavar="ARGUMENTS",
    help="Arguments that the first part is given too; without --at it ends by itself.",
)
@click.option(
    "--again",
    callback=_words,
    metavar="ARGUMENTS",
    help="Arguments that the resumed run is given too, such as '--resume last.pt'.",
)
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when the runs differ.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; with -o, no report on stdout.")
def resume(
    *,
    at: int | None,
    first: tuple[str, ...],
    again: tuple[str, ...],
    devices: tuple[str, ...],
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Interrupt TARGET, resume it, and compare with a run that goes straight through.

    Each run has a copy of the directory. What the resumed run begins with is
    compared kind by kind: weights, data, generators, optimizers.
    """
    if len(devices) > 1:
        raise UsageError("a run is resumed on the device that it was begun on; name one")
    out.ensure_report(format_, output, force=force)
    request = request_of(devices=devices, **settings)
    from repro_audit.audit import ResumeRequest, run_resume

    asking = partial(run_resume, ResumeRequest(request, at, first, again))
    return out.answer(asking, format_, output, quiet=quiet, exit_zero=exit_zero)
