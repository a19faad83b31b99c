"""Commands that run a program: its target, its arguments after `--`, and what is controlled."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from repro_audit.errors import UsageError
from repro_audit.replicate import machine

if TYPE_CHECKING:
    from repro_audit.audit.request import AuditRequest
    from repro_audit.model import Mode

_F = TypeVar("_F", bound=Callable[..., Any])
_PROGRAM_ARGUMENTS = "repro_audit.program_arguments"


class ProgramCommand(click.Command):
    """A command on a target: its options may stand anywhere before `--`, the program's after.

    A word that is neither the target nor an option of the command is refused with the command
    line that was probably meant.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the program's arguments apart and leave one target at most to click."""
        cut = args.index("--") if "--" in args else len(args)
        options, words = self._parted(ctx, args[:cut])
        ctx.meta[_PROGRAM_ARGUMENTS] = tuple(args[cut + 1 :])
        by_module = "-m" in options
        if len(words) > (0 if by_module else 1) or any(word.startswith("-") for word in words):
            target = None if by_module else _likely_target(words)
            strays = words if target is None else _without(words, target)
            own = options if target is None else [target, *options]
            meant = shlex.join([*ctx.command_path.split(), *own, "--", *strays, *args[cut + 1 :]])
            raise UsageError(self._refusal(ctx, strays[0], meant))
        return super().parse_args(ctx, [*words, *options])

    def _parted(self, ctx: click.Context, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """This command's options with their values, and the words that are neither."""
        takes_value = self._options(ctx)
        options: list[str] = []
        words: list[str] = []
        rest = iter(args)
        for word in rest:
            name, attached, _ = word.partition("=") if word.startswith("--") else (word, "", "")
            if name not in takes_value:
                words.append(word)
                continue
            options.append(word)
            if takes_value[name] and not attached:
                options.extend(value for value in [next(rest, None)] if value is not None)
        return options, words

    def _options(self, ctx: click.Context) -> dict[str, bool]:
        return {
            name: not (option.is_flag or option.count)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in option.opts
        }

    def _refusal(self, ctx: click.Context, stray: str, meant: str) -> str:
        known = self._options(ctx)
        what = f"unexpected argument {stray!r}"
        if stray.startswith("-"):
            what = f"no such option: {stray}"
            name = stray.partition("=")[0]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            if not near and known.get(stray[:2]):
                near = [f"{stray[:2]} {stray[2:]}"]
            what += f" (did you mean {near[0]}?)" if near else ""
        return f"{what}; what is meant for the program goes after `--`:\n  {meant}"


def _likely_target(words: Sequence[str]) -> str | None:
    """Of words of which too many are there, the one that names a program."""
    names = [word for word in words if not word.startswith("-")]
    programs = [w for w in names if Path(w.partition(":")[0]).suffix == ".py" or Path(w).is_file()]
    return next(iter([*programs, *names]), None)


def _without(words: Sequence[str], target: str) -> list[str]:
    position = list(words).index(target)
    return [*words[:position], *words[position + 1 :]]


def devices(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The devices that an option names, checked to be such."""
    names = () if value is None else tuple(value.split(","))
    for name in names:
        if not machine.known(name):
            raise click.BadParameter(f"{name!r} is no device: it is {machine.NAMES}.")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} names a device twice; --runs N runs it more often.")
    return names


def _seconds(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds.")
    return value


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    callback=_seconds,
    metavar="S",
    help="End a run that takes more than S seconds.",
)


input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="An input of FILE.py:CLASS, such as 'float32[8,3,32,32]'; repeatable.",
)
level_option = click.option(
    "--level",
    type=click.Choice(["ops", "modules"]),
    default="ops",
    show_default=True,
    help="Fingerprint every op, or modules first and then the ops of the interval in which "
    "they part: cheaper for long runs.",
)


device_option = click.option(
    "--device",
    "devices",
    callback=devices,
    metavar="DEVICE[,...]",
    help="cpu, cuda, cuda:N, xpu, mps, npu, ...: a model file is moved there, of CUDA's a script "
    "sees no other. Of several, one run on each is compared.",
)
_target_options = (
    click.argument("target", required=False),
    click.option("-m", "module", metavar="MODULE", help="Run a module, as `python -m` does."),
    click.option("--steps", type=click.IntRange(1), metavar="N", help="End it after N steps."),
    timeout_option,
)
_mode_options = (
    click.option("--deterministic", is_flag=True, help="Turn all determinism switches on."),
    click.option("--as-is", is_flag=True, help="Touch nothing, not even the seeds."),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        metavar="N",
        help="The seed of all generators.",
    ),
)


def program_options(device: Callable[[Any], Any] = device_option) -> Callable[[_F], _F]:
    """The target, and the options that say under which conditions it runs, on which `device`."""

    def decorated(command: _F) -> _F:
        for decorate in reversed((*_target_options, device, *_mode_options)):
            command = decorate(command)
        return command

    return decorated


def mode_of(*, deterministic: bool, as_is: bool) -> Mode:
    """The mode that two flags, which exclude each other, ask for."""
    if deterministic and as_is:
        raise UsageError(
            "--deterministic turns switches on and --as-is touches nothing; give one of them"
        )
    return "deterministic" if deterministic else "as-is" if as_is else "controlled"


def request_of(
    *,
    target: str | None,
    module: str | None,
    inputs: tuple[str, ...] = (),
    deterministic: bool,
    as_is: bool,
    **settings: Any,
) -> AuditRequest:
    """What the options of `program_options` ask for, with further `settings` of a request.

    Raises UsageError where there is no target, or it is none.
    """
    context = click.get_current_context()
    if target is None and module is None:
        raise UsageError(f"no target; name a program, such as `{context.command_path} train.py`")
    mode = mode_of(deterministic=deterministic, as_is=as_is)
    from repro_audit.audit.request import AuditRequest
    from repro_audit.replicate.target import parse_target

    words = () if target is None else (target,)
    program = parse_target(words, module, inputs, context.meta[_PROGRAM_ARGUMENTS])
    return AuditRequest(target=program, mode=mode, **settings)
