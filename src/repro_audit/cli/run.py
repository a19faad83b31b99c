"""`repro-audit run`: is it reproducible here, and if not, where and why?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro_audit.cli import output as out
from repro_audit.cli.bisect import skipping
from repro_audit.cli.program import (
    ProgramCommand,
    input_option,
    level_option,
    program_options,
    request_of,
)
from repro_audit.errors import EXIT_DIVERGENT, EXIT_IDENTICAL, EXIT_SKIP, UsageError

if TYPE_CHECKING:
    from repro_audit.audit import AuditRequest


@click.command(
    cls=ProgramCommand,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  repro-audit run train.py --steps 3 -- --lr 0.1
  repro-audit run -m pkg.train --runs 5 --deterministic
  git bisect run repro-audit run --bisect train.py
  repro-audit run model.py:Net --input 'float32[8,3,32,32]' --device cuda
""",
)
@program_options()
@input_option
@level_option
@click.option(
    "--runs",
    type=click.IntRange(1),
    metavar="N",
    help="How many: 2 by default; on each of several devices, 1.",
)
@click.option("--isolate", is_flag=True, help="Give each run its own copy of the directory.")
@click.option(
    "--lockstep",
    is_flag=True,
    help="Run the first two side by side, and end them at the first op that differs.",
)
@click.option("--no-confirm", is_flag=True, help="Skip the as-is run after identical ones.")
@click.option("--self-check", is_flag=True, help="Prove that observing changes nothing.")
@click.option(
    "--explain",
    is_flag=True,
    help="Find out why: the op alone, one condition changed at a time, a cure tried out.",
)
@out.report_options
@click.option(
    "--reproducer",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a script there that shows the divergence with torch alone; implies --explain.",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Exit as `git bisect run` expects: 125 where it cannot be audited.",
)
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when runs diverge.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; with -o, no report on stdout.")
def run(
    *,
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
    quiet: bool,
    no_confirm: bool,
    bisect: bool,
    **settings: Any,
) -> int:
    """Run TARGET twice and name the first op that diverges.

    TARGET is a script, a model file that defines build_model(), or
    FILE.py:CLASS. What follows `--` goes to the program.
    """
    if bisect and exit_zero:
        raise click.UsageError("--bisect tells a divergence by its exit code: no --exit-zero")
    with skipping(enabled=bisect):
        request = request_of(confirm=not no_confirm and not bisect, **settings)
        code = _run(request, format_, output, force=force, exit_zero=exit_zero, quiet=quiet)
    return EXIT_SKIP if bisect and code not in {EXIT_IDENTICAL, EXIT_DIVERGENT} else code


def _run(
    request: AuditRequest,
    format_: str,
    output: Path | None,
    *,
    force: bool,
    exit_zero: bool,
    quiet: bool,
) -> int:
    if request.reproducer is not None:
        out.ensure_empty(request.reproducer)
    if request.runs == 1 and not request.between_devices:
        raise UsageError("one run compares with nothing: --runs 2 at least, or several devices")
    out.ensure_report(format_, output, force=force)
    from repro_audit.audit import run_audit

    asked = partial(run_audit, request)
    return out.answer(asked, format_, output, quiet=quiet, exit_zero=exit_zero)
