"""The options that say what is no divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from repro_audit.errors import UsageError
from repro_audit.model import Tolerance

_F = TypeVar("_F", bound=Callable[..., Any])


def tolerance_options(command: _F) -> _F:
    """`--ulp-tol` and `--rounding`."""
    decorators = (
        click.option(
            "--ulp-tol",
            type=click.IntRange(0),
            metavar="N",
            help="Tolerate N units in the last place, at every element that was kept.",
        ),
        click.option(
            "--rounding",
            is_flag=True,
            help="Tolerate what rounding explains, by how many numbers each op adds up.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def tolerance_of(*, ulp_tol: int | None, rounding: bool) -> Tolerance:
    """The tolerance that the two options, which exclude each other, ask for."""
    if ulp_tol is not None and rounding:
        raise UsageError("--ulp-tol and --rounding are two tolerances; give one of them")
    return Tolerance(ulp_tol, rounding)
