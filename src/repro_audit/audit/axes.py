"""The axes of a matrix: what there is to vary, read from what the user wrote."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from repro_audit.control.axes import CAPABILITIES
from repro_audit.errors import UsageError
from repro_audit.model import Axis, Mode, Target
from repro_audit.replicate.machine import Machine, known

# The rungs of compilation: each adds a stage of the one before.
LADDER = ("eager", "aot_eager", "aot_eager_decomp_partition", "inductor")
_SWITCH = ("on", "off")
_DTYPES = ("float64", "float32", "bfloat16", "float16")
_DEVICES = ("cpu", "cuda", "cuda:N", "xpu", "mps")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What values an axis takes: `named` ones, or numbers from `least` to `most`."""

    named: tuple[str, ...] = ()
    least: int = 0
    most: int = 0
    # Whether only what we drive ourselves can be varied in it.
    driven: bool = False

    @property
    def valid(self) -> str:
        """The values, for people."""
        return ", ".join(self.named) or f"whole numbers from {self.least} to {self.most:,}"


KINDS = {
    "device": _Kind(_DEVICES),
    "threads": _Kind(least=1, most=1024),
    "isa": _Kind(CAPABILITIES),
    "tf32": _Kind(_SWITCH),
    "mkldnn": _Kind(_SWITCH),
    "deterministic": _Kind(_SWITCH),
    "hash-seed": _Kind(least=0, most=2**32 - 1),
    "batch": _Kind(least=1, most=2**31 - 1, driven=True),
    "dtype": _Kind(_DTYPES, driven=True),
    "compile": _Kind(LADDER, driven=True),
}


def parse_axes(words: Sequence[str], target: Target) -> tuple[Axis, ...]:
    """The axes that `NAME=VALUE,VALUE` words name, checked to be axes of the target.

    Raises UsageError, with what there is instead, for an axis or a value that is none, an axis or
    value named twice, and an axis of one value.
    """
    if not words:
        raise UsageError(
            "no axis to vary; name one, such as --vary threads=1,2. "
            f"There are: {', '.join(_axes_of(target))}"
        )
    axes: list[Axis] = []
    for word in words:
        name, sign, listed = word.partition("=")
        name = name.strip()
        if name not in KINDS:
            raise UsageError(_unknown(name, target))
        if KINDS[name].driven and name not in _axes_of(target):
            raise UsageError(
                f"{name} is an axis of model files and classes, and {target.label} is a "
                f"{target.kind}, whose axes are: {', '.join(_axes_of(target))}"
            )
        if any(axis.name == name for axis in axes):
            raise UsageError(
                f"{name} is varied twice; write its values together: --vary {name}=A,B"
            )
        values = tuple(value.strip() for value in listed.split(",") if value.strip())
        if not sign or len(values) < 2:
            raise UsageError(
                f"--vary {word} has {'one value' if values else 'no value'}, and nothing to "
                f"compare it with; {name} takes {KINDS[name].valid}"
            )
        values = tuple(_checked(name, value) for value in values)
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UsageError(f"--vary {word} has {twice} twice; --repeats N runs it more often")
        axes.append(Axis(name, values))
    return tuple(axes)


def check_here(axes: Sequence[Axis], ask: Callable[[], Machine]) -> None:
    """Raise UsageError for a value that this machine has not; `ask` tells what it has.

    ATen falls back without a word from kernels that the CPU lacks, so that they would seem equal.
    """
    named = {axis.name: axis.values for axis in axes}
    isas, devices = named.get("isa", ()), named.get("device", ())
    if not isas and not any(value != "cpu" for value in devices):
        return
    here = ask()
    known = [name for name in CAPABILITIES if CAPABILITIES.index(name) <= _level(here.capability)]
    for value in isas:
        if value not in known:
            raise UsageError(
                f"this CPU has no {value}: torch computes with {here.capability} here. "
                f"There are: {', '.join(known)}"
            )
    for value in devices:
        if value != "cpu":
            here.check(value)


def cells_of(axes: Sequence[Axis], *, grid: bool) -> list[dict[str, str]]:
    """The settings of each cell, the baseline's first: every combination, or one axis at a time."""
    if grid:
        names = [axis.name for axis in axes]
        combinations = product(*(axis.values for axis in axes))
        return [dict(zip(names, values, strict=True)) for values in combinations]
    baseline = {axis.name: axis.values[0] for axis in axes}
    return [
        baseline,
        *({**baseline, axis.name: value} for axis in axes for value in axis.values[1:]),
    ]


def changes_of(settings: Mapping[str, str], axes: Sequence[Axis], mode: Mode) -> dict[str, Any]:
    """The fields of a plan by which a run has these settings."""
    changes: dict[str, Any] = {"mode": mode}
    held = []
    for axis in axes:
        value = settings[axis.name]
        if axis.name == "device":
            changes["device"] = value
        elif axis.name == "hash-seed":
            changes["hash_seed"] = int(value)
        elif axis.name == "batch":
            changes |= {"batch": int(value), "rows": max(map(int, axis.values))}
        elif axis.name == "dtype":
            changes["dtype"] = value
        elif axis.name == "compile":
            changes["compile"] = None if value == LADDER[0] else value
        else:
            held.append(f"{axis.name}={value}")
            if axis.name == "deterministic" and value == "on":
                changes["mode"] = "deterministic"
    return {**changes, "held": tuple(held)}


def _level(capability: str) -> int:
    """Where a capability stands among those that can be asked for; 0 for that of another CPU."""
    return CAPABILITIES.index(capability) if capability in CAPABILITIES else 0


def _axes_of(target: Target) -> list[str]:
    driven = target.kind in {"model-file", "class"}
    return [name for name, kind in KINDS.items() if driven or not kind.driven]


def _unknown(name: str, target: Target) -> str:
    near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.5)
    hint = f" Is it {near[0]}?" if near else ""
    return f"{name!r} is no axis.{hint} There are: {', '.join(_axes_of(target))}"


def _checked(name: str, value: str) -> str:
    """A value as it is written everywhere. Raises UsageError where the axis has no such value."""
    kind = KINDS[name]
    if kind.named:
        if known(value) if name == "device" else value in kind.named:
            return value
        near = difflib.get_close_matches(value, kind.named, n=1, cutoff=0.5)
        hint = f" Is it {near[0]}?" if near else ""
        raise UsageError(f"{name} has no value {value!r}.{hint} There are: {kind.valid}")
    if not value.isascii() or not value.isdigit() or not kind.least <= int(value) <= kind.most:
        raise UsageError(f"{name}={value} is none of its values: it takes {kind.valid}")
    return str(int(value))
