"""Axes of a process: conditions held at one of several values, whatever the program sets.

A value that is held is written `threads=2`. Pins are what experiments hold at the value that
repeats; an axis is held at any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from repro_audit.control.pins import hold_property, hold_tf32, hold_threads, ignore

# What ATen calls the kernels that it has for a CPU, the narrowest first.
CAPABILITIES = ("default", "avx2", "avx512")
_PLACING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES", "OMP_PROC_BIND")


def environment(held: Iterable[str]) -> dict[str, str | None]:
    """The variables that held values set when the process starts; None for one to be taken away."""
    found: dict[str, str | None] = {}
    for axis, value in map(_parted, held):
        if axis == "threads":
            found |= {"OMP_NUM_THREADS": value, "MKL_NUM_THREADS": value}
        elif axis == "isa":
            found["ATEN_CPU_CAPABILITY"] = value
        elif axis == "tf32":
            found["NVIDIA_TF32_OVERRIDE"] = "0" if value == "off" else None
        elif axis == "core":
            # By these OpenMP moves the process to other cores when it is loaded.
            found |= dict.fromkeys(_PLACING)
    return found


def begin(held: Iterable[str]) -> None:
    """Hold what a process has from its start: the core that it runs on, and all that it starts.

    What the program asks for after this is ignored. Raises OSError where there is no such core, or
    none can be chosen.
    """
    for axis, value in map(_parted, held):
        if axis == "core":
            if not hasattr(os, "sched_setaffinity"):
                raise OSError("a process cannot be held on a core on this system")
            os.sched_setaffinity(0, {int(value)})
            ignore(os, "sched_setaffinity")


def hold(held: Iterable[str], torch: Any) -> None:
    """Hold values on torch's settings from here on: what the program sets after is ignored."""
    for axis, value in map(_parted, held):
        holder = _HOLDERS.get(axis)
        if holder is not None:
            holder(torch, value)


def _parted(held: str) -> tuple[str, str]:
    axis, _, value = held.partition("=")
    return axis, value


def _hold_mkldnn(torch: Any, value: str) -> None:
    hold_property(torch.backends.mkldnn, "enabled", value == "on")
    ignore(torch._C, "_set_mkldnn_enabled")


def _hold_deterministic(torch: Any, value: str) -> None:
    # What is on is a mode of the run, which has set all that belongs to it by now.
    if value == "off":
        # It imports inductor, which takes longer than torch.
        if torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(False)
        hold_property(torch.backends.cudnn, "deterministic", False)
        ignore(torch._C, "_set_cudnn_deterministic")
    ignore(
        torch._C, "_set_deterministic_algorithms", "_set_deterministic_fill_uninitialized_memory"
    )


_HOLDERS: dict[str, Callable[[Any, str], None]] = {
    "deterministic": _hold_deterministic,
    "mkldnn": _hold_mkldnn,
    "tf32": lambda torch, value: hold_tf32(torch, value == "on"),
    "threads": lambda torch, value: hold_threads(torch, int(value)),
}
