"""Runs that were not made alike: programs, settings, versions or machines that differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from repro_audit.model import Cause, ManifestDifference

# What decides how an operator computes.
_SETTINGS = ("torch.", "versions.", "environment.", "machine.", "asked.", "engine")
# Read by Python, not by torch: another order is another cause.
_NOT_THESE = {"environment.PYTHONHASHSEED", "torch.initial_seed"}
_EXPLICABLE = {"unknown", "nondeterministic-op", "kernel-selection"}
# What another program, or one that is told something else, does otherwise: draws and data, too.
_OF_PROGRAM = {*_EXPLICABLE, "data-order", "rng-drift", "unseeded-rng"}
_SOURCE, _ARGUMENTS = "target.sha256", "target.arguments"
_SHOWN = 3


def settings_of(differences: Sequence[ManifestDifference]) -> tuple[ManifestDifference, ...]:
    """Those of the differences that can change what an operator computes."""
    return tuple(
        difference
        for difference in differences
        if difference.field.startswith(_SETTINGS) and difference.field not in _NOT_THESE
    )


def configured(cause: Cause, differences: Sequence[ManifestDifference]) -> Cause:
    """`cause`, or that the runs were not made alike, where nothing that was seen speaks against it.

    What the program is and was told goes before settings: what was seen is then its doing.
    """
    found = settings_of(differences)
    program = [difference for difference in differences if _is_of_program(difference)]
    if program and cause.cls in _OF_PROGRAM:
        known = cause.cls not in _EXPLICABLE
        seen = cause.evidence if cause.cls != "unknown" else ()
        return replace(
            cause,
            cls="config-difference",
            confidence="likely",
            evidence=(f"the runs were not made alike: {'; '.join(map(_told, program))}", *seen),
            remedies=(*_alike(program), *(cause.remedies if known else ())),
            source=None,
        )
    if not found or cause.cls not in _EXPLICABLE:
        return cause
    said = [_said(difference) for difference in found[:_SHOWN]]
    if len(found) > _SHOWN:
        said.append(f"{len(found) - _SHOWN} more settings differ")
    return replace(
        cause,
        cls="config-difference",
        confidence="likely",
        evidence=(f"the runs were not made alike: {'; '.join(said)}",),
        remedies=("make both runs under the same settings, then compare again",),
        source=None,
    )


def _is_of_program(difference: ManifestDifference) -> bool:
    # A source that could not be read is not known to be another.
    read = difference.field == _SOURCE and None not in difference.values.values()
    return read or difference.field == _ARGUMENTS


def _told(difference: ManifestDifference) -> str:
    if difference.field == _SOURCE:
        return "the program's source differs"
    values = [value if isinstance(value, list) else [] for value in difference.values.values()]
    words = dict.fromkeys(shlex.join(map(str, value)) or "none" for value in values)
    return f"the program's arguments are {' and '.join(words)}"


def _alike(program: Sequence[ManifestDifference]) -> Iterator[str]:
    fields = {difference.field for difference in program}
    if _SOURCE in fields:
        yield "run one and the same source: check out the commit that a recording's manifest names"
    if _ARGUMENTS in fields:
        yield "give both runs the same arguments, then compare again"


def _said(difference: ManifestDifference) -> str:
    values = list(dict.fromkeys(map(_value, difference.values.values())))
    return f"{difference.field} is {' and '.join(values)}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
