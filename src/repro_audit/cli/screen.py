"""`repro-audit screen`: which device of many is wrong?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from repro_audit.cli import output as out
from repro_audit.cli.program import ProgramCommand, input_option, program_options, request_of
from repro_audit.errors import UsageError
from repro_audit.replicate import machine

_RECORDINGS = "repro_audit.recordings"
_SQLITE = b"SQLite format 3"
# What may be said of a screening that runs nothing.
_OF_REPORTS = {"format_", "output", "force", "exit_zero", "quiet"}


class _ScreenCommand(ProgramCommand):
    """A command on a program, or on recordings of one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set recordings apart: words that name traces stand for no program."""
        cut = args.index("--") if "--" in args else len(args)
        # Neither the value of an option nor what is the program's own is a recording.
        options, words = self._parted(ctx, args[:cut])
        recordings = [word for word in words if _is_recording(word)]
        ctx.meta[_RECORDINGS] = tuple(recordings)
        others = [word for word in words if word not in recordings]
        if recordings:
            for word in others:
                if not word.startswith("-") and Path(word).suffix != ".py":
                    is_there = "is no recording" if Path(word).exists() else "does not exist"
                    raise UsageError(
                        f"{word} {is_there}, and {recordings[0]} is a recording: name recordings "
                        "that `repro-audit record` made, or a program alone"
                    )
            if args[cut + 1 :]:
                raise UsageError(
                    f"what follows -- is for a program that is run, and {recordings[0]} is a "
                    "recording; screen the one or the other"
                )
        return super().parse_args(ctx, [*others, *options, *args[cut:]])


def _is_recording(word: str) -> bool:
    path = Path(word)
    try:
        if word.startswith("-") or path.suffix == ".py" or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise UsageError(f"{word} cannot be read: {error.strerror}") from error


def _devices(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = () if value is None else tuple(value.split(","))
    for name in names:
        if not (re.fullmatch(r"cpu:\d+", name) or machine.known(name)):
            raise click.BadParameter(
                f"{name!r} is no device: it is {machine.NAMES}, or cpu:N for a core."
            )
    return names


_device_option = click.option(
    "--device",
    "devices",
    callback=_devices,
    metavar="DEVICE[,...]",
    help="Which to screen: cuda:0,cuda:3, or cuda for all of them; cpu for each core by itself, "
    "cpu:N for one. By default every accelerator, or where there is none every core.",
)


@click.command(
    cls=_ScreenCommand,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  repro-audit screen                            every accelerator, or every core
  repro-audit screen --device cuda:0,cuda:3 --rounds 20
  repro-audit screen model.py --steps 2         by a program of your own
  repro-audit record -m repro_audit.workload -o $(hostname).audit
  repro-audit screen node*.audit                machines, by what each recorded
""",
)
@program_options(_device_option)
@input_option
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Runs on each device: one that errs now and then is found by many.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Runs side by side; by default one on each device, as memory allows.",
)
@click.option("--isolate", is_flag=True, help="Give each run its own copy of the directory.")
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when devices differ.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; with -o, no report on stdout.")
@click.pass_context
def screen(
    ctx: click.Context,
    /,
    *,
    rounds: int,
    jobs: int | None,
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
    quiet: bool,
    target: str | None,
    module: str | None,
    **settings: Any,
) -> int:
    """Run one program on many devices and name the one that computes otherwise.

    TARGET is a script, a model file or FILE.py:CLASS; by default a program that
    comes along, which gives the same bits on all devices of a kind. Or give
    recordings of one program, made on several machines.
    """
    out.ensure_report(format_, output, force=force)
    recordings: Sequence[str] = ctx.meta[_RECORDINGS]
    if recordings:
        _check_alone(ctx, recordings)
        from repro_audit.audit import screen_recordings

        audit = screen_recordings([Path(word) for word in recordings])
        out.finish(audit, format_, output, quiet=quiet)
        return out.exit_code(audit, exit_zero=exit_zero)
    from repro_audit.audit import ScreenRequest, run_screen
    from repro_audit.audit.screening import WORKLOAD

    if target is None and module is None:
        module = WORKLOAD
    request = request_of(target=target, module=module, **settings)
    asking = partial(run_screen, ScreenRequest(request, rounds, jobs))
    return out.answer(asking, format_, output, quiet=quiet, exit_zero=exit_zero)


def _check_alone(ctx: click.Context, recordings: Sequence[str]) -> None:
    """Raise UsageError where recordings are given, and what is for a program that is run."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OF_REPORTS:
            said = parameter.opts[0] if isinstance(parameter, click.Option) else ctx.params[name]
            raise UsageError(
                f"{said} is for a program that is run, and {recordings[0]} is a recording; "
                "screen the one or the other"
            )
