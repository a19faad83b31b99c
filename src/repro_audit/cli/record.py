"""`repro-audit record`: one run's trace, to carry away."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from repro_audit.cli.output import ensure_writable, say
from repro_audit.cli.program import ProgramCommand, program_options, request_of
from repro_audit.cli.progress import progress
from repro_audit.errors import UsageError


@click.command(
    cls=ProgramCommand,
    epilog="""\b
Example:
  repro-audit record train.py -o here.audit -- --lr 0.1
""",
)
@program_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The trace to write, such as train.audit.",
)
@click.option("--force", "-f", is_flag=True, help="Overwrite FILE.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what the program prints.")
def record(*, output: Path, force: bool, quiet: bool, **settings: Any) -> int:
    """Run TARGET once and keep its trace.

    Traces from two machines or two versions of a program are compared with
    `repro-audit compare`.
    """
    request = request_of(**settings)
    if request.between_devices:
        raise UsageError(
            "a recording is of one run, on one device: record on each, then `repro-audit compare`"
        )
    ensure_writable(output, force=force)
    from repro_audit.audit import record_run

    with progress(quiet=quiet) as shown:
        record_run(request, output, force, shown)
    if not quiet:
        name = shlex.quote(str(output))
        say(f"RECORDED  {output}\n  compare  repro-audit compare {name} OTHER.audit\n")
    return 0
