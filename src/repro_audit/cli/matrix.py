"""`repro-audit matrix`: which condition changes the bits, where first, and by how much?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from repro_audit.cli import output as out
from repro_audit.cli.program import (
    ProgramCommand,
    input_option,
    level_option,
    program_options,
    request_of,
)
from repro_audit.errors import UsageError


@click.command(
    cls=ProgramCommand,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  repro-audit matrix train.py --vary threads=1,2 --vary isa=default,avx2
  repro-audit matrix model.py --vary batch=1,8 --vary compile=eager,inductor
  repro-audit matrix model.py --vary device=cpu,cuda --vary tf32=on,off --grid

\b
Axes of any program: device, threads, isa, tf32, mkldnn, deterministic,
hash-seed; of model files and classes also batch, dtype, compile.
""",
)
@program_options()
@input_option
@level_option
@click.option(
    "--vary",
    multiple=True,
    metavar="AXIS=V,V[,...]",
    help="A condition and its values, the baseline's first; repeatable.",
)
@click.option("--grid", is_flag=True, help="Run every combination, not one axis at a time.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="N",
    help="Runs of each cell: they tell what differs between cells from what differs within one.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Runs side by side, where cores and devices allow; with more than 1 no step is timed.",
)
@click.option("--isolate", is_flag=True, help="Give each run its own copy of the directory.")
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when cells differ.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; with -o, no report on stdout.")
def matrix(
    *,
    vary: tuple[str, ...],
    grid: bool,
    repeats: int,
    jobs: int,
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Run TARGET under several conditions and tell which of them change the bits.

    One axis is changed at a time, from the first value of each; a cell that
    fails is a result. TARGET is a script, a model file, or FILE.py:CLASS.
    """
    request = request_of(**settings)
    if request.between_devices:
        raise UsageError("--device takes one device here; --vary device=A,B compares several")
    from repro_audit.audit import MatrixRequest, run_matrix

    asked = MatrixRequest(request, vary, grid=grid, repeats=repeats, jobs=jobs)
    out.ensure_report(format_, output, force=force)
    asking = partial(run_matrix, asked)
    return out.answer(asking, format_, output, quiet=quiet, exit_zero=exit_zero)
