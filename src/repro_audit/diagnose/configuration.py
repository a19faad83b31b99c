"""Runs that were not made alike: settings, versions or machines that differ between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from repro_audit.model import Cause, ManifestDifference

# What decides how an operator computes; what a program was told is no setting.
_SETTINGS = ("torch.", "versions.", "environment.", "machine.", "asked.", "engine")
# Read by Python, not by torch: another order is another cause.
_NOT_THESE = {"environment.PYTHONHASHSEED", "torch.initial_seed"}
_EXPLICABLE = {"unknown", "nondeterministic-op", "kernel-selection"}
_SHOWN = 3


def settings_of(differences: Sequence[ManifestDifference]) -> tuple[ManifestDifference, ...]:
    """Those of the differences that can change what an operator computes."""
    return tuple(
        difference
        for difference in differences
        if difference.field.startswith(_SETTINGS) and difference.field not in _NOT_THESE
    )


def configured(cause: Cause, differences: Sequence[ManifestDifference]) -> Cause:
    """`cause`, or that the runs had other settings, where nothing that was seen speaks against it.

    What is known of the op stays as evidence: it computes otherwise under other settings.
    """
    found = settings_of(differences)
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


def _said(difference: ManifestDifference) -> str:
    values = list(dict.fromkeys(map(_value, difference.values.values())))
    return f"{difference.field} is {' and '.join(values)}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
