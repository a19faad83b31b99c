"""`repro-audit record`: one run's trace, to carry away."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from repro_audit.cli.output import ensure_writable, say
from repro_audit.cli.program import (
    ProgramCommand,
    input_option,
    level_option,
    program_options,
    request_of,
)
from repro_audit.cli.progress import progress
from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from repro_audit.audit.recording import Capture

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_FROM: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}


def _bytes(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no size, such as 500M or 4G.")
    power = "KMGT".find(found.group(2).upper()) + 1 if found.group(2) else 0
    return int(float(found.group(1)) * 1024**power)


@click.command(
    cls=ProgramCommand,
    epilog="""\b
Example:
  repro-audit record train.py -o here.audit -- --lr 0.1
  repro-audit record train.py -o here.audit --capture full --budget 2G
  repro-audit record train.py -o here.audit --weights-from there.audit
""",
)
@program_options()
@input_option
@level_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The trace to write, such as train.audit.",
)
@click.option(
    "--capture",
    type=click.Choice(["none", "sample", "full"]),
    default="sample",
    show_default=True,
    help="What to keep of tensors beside their digests: nothing, 512 elements of each, or all.",
)
@click.option(
    "--budget",
    callback=_bytes,
    default="4G",
    show_default=True,
    metavar="SIZE",
    help="How many bytes `--capture full` may keep: what tells the most goes first.",
)
@click.option("--weights-from", **_FROM, help="Begin with the weights that FILE recorded.")
@click.option("--inputs-from", **_FROM, help="Take batches and inputs from FILE.")
@click.option("--draws-from", **_FROM, help="Take random numbers from FILE.")
@click.option("--force", "-f", is_flag=True, help="Overwrite FILE.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what the program prints.")
def record(
    *,
    output: Path,
    capture: Capture,
    budget: int,
    weights_from: Path | None,
    inputs_from: Path | None,
    draws_from: Path | None,
    force: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Run TARGET once and keep its trace.

    Traces from two machines or two versions of a program are compared with
    `repro-audit compare`; `repro-audit verify` runs one again elsewhere.
    """
    asked = click.get_current_context().get_parameter_source("budget")
    if asked is not ParameterSource.DEFAULT and capture != "full":
        raise UsageError("--budget limits what --capture full keeps: give both, or neither")
    from repro_audit.audit import given_from, kept_of, record_run

    samples, whole = kept_of(capture, budget)
    sources = {"weights": weights_from, "inputs": inputs_from, "draws": draws_from}
    given = given_from(sources)
    request = request_of(samples=samples, budget=whole, given=given, **settings)
    if request.between_devices:
        raise UsageError(
            "a recording is of one run, on one device: record on each, then `repro-audit compare`"
        )
    ensure_writable(output, force=force)
    with progress(quiet=quiet) as shown:
        record_run(request, output, force, shown)
    if not quiet:
        name = shlex.quote(str(output))
        said = f"RECORDED  {output}\n  compare  repro-audit compare {name} OTHER.audit\n"
        say(f"{said}  elsewhere  repro-audit verify {name}\n")
    return 0
