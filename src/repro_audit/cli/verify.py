"""`repro-audit verify`: does what was recorded come out the same here?"""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.cli.program import devices, timeout_option
from repro_audit.cli.tolerance import tolerance_of, tolerance_options
from repro_audit.errors import UsageError


class _VerifyCommand(click.Command):
    """A command on a recording, which has the program's arguments: there are none after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse words after `--`, which would be taken for the program's name."""
        given = args[args.index("--") + 1 :] if "--" in args else []
        if given:
            raise UsageError(
                "verify gives the program the arguments that were recorded; to compare with "
                "others, record with them: `repro-audit record TARGET -o FILE -- "
                f"{shlex.join(given)}`, then `repro-audit compare`"
            )
        return super().parse_args(ctx, args)


@click.command(
    cls=_VerifyCommand,
    epilog="""\b
Examples:
  repro-audit verify h100.audit
  repro-audit verify h100.audit --same-start --rounding
  repro-audit verify h100.audit scripts/train.py   its program is there, here
""",
)
@click.argument("recording", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("program", required=False)
@click.option(
    "--same-start",
    is_flag=True,
    help="Take weights, inputs and random draws from FILE: another machine draws other numbers.",
)
@click.option(
    "--own/--no-own",
    default=None,
    help="Run each op with FILE's own values too: what it errs by itself, and who is nearer to "
    "float64. By default where FILE has all tensors and the runs differ.",
)
@tolerance_options
@click.option(
    "--device",
    callback=devices,
    metavar="DEVICE",
    help="Run it on this one, instead of the recorded one: cpu, cuda, cuda:N, ....",
)
@timeout_option
@click.option("--isolate", is_flag=True, help="Give each run its own copy of the directory.")
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when they diverge.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; with -o, no report on stdout.")
def verify(
    *,
    recording: Path,
    program: str | None,
    same_start: bool,
    own: bool | None,
    ulp_tol: int | None,
    rounding: bool,
    device: tuple[str, ...],
    timeout: float | None,
    isolate: bool,
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
    quiet: bool,
) -> int:
    """Run again here what FILE recorded, and compare.

    The command, its arguments, seeds and switches are the recorded ones. PROGRAM
    says where the program is, if not where it was.
    """
    if len(device) > 1:
        raise UsageError("a recording is run again on one device; name one")
    out.ensure_report(format_, output, force=force)
    from repro_audit.audit import VerifyRequest
    from repro_audit.audit import verify as verified

    request = VerifyRequest(
        recording,
        program,
        tolerance=tolerance_of(ulp_tol=ulp_tol, rounding=rounding),
        same_start=same_start,
        own=own,
        device=device[0] if device else None,
        timeout=timeout,
        isolate=isolate,
    )
    asking = partial(verified, request)
    return out.answer(asking, format_, output, quiet=quiet, exit_zero=exit_zero)
