"""The devices of this machine: which are asked for, how a run uses one alone, and if it did."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_audit.audit.session import Finished
from repro_audit.control.environment import VISIBLE, child_environment
from repro_audit.errors import UsageError
from repro_audit.model import Plan
from repro_audit.replicate.machine import Machine, machine

# What each run may take of the memory that is there, in KiB, where cores run side by side.
_SHARE = 2**20
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Device:
    """A device by its name, what it is called, and what of a plan lets a run use it alone."""

    name: str
    hardware: str | None
    changes: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """Its name in those of files."""
        return self.name.replace(":", "-")


def devices_here(asked: Sequence[str]) -> list[Device]:
    """The devices of these names; of a kind all that are here, without a name every accelerator.

    Where there is no accelerator it is every core. Raises UsageError for a device that is not here,
    and for one that is named twice.
    """
    here = machine() if not asked or any(not name.startswith("cpu") for name in asked) else None
    if here is not None and not asked:
        asked = [kind for kind, count in here.devices.items() if count] or ["cpu"]
    found: dict[str, Device] = {}
    for name in asked:
        kind, _, index = name.partition(":")
        if kind == "cpu":
            named = _cores(index)
        else:
            assert here is not None
            here.check(name)
            named = _accelerators(kind, index, here)
        for device in named:
            if device.name in found:
                raise UsageError(f"{device.name} is named twice; --rounds N runs it more often")
            found[device.name] = device
    return list(found.values())


def check_placed(run: Finished, device: Device, plan: Plan) -> None:
    """Raise UsageError where the program left the device that its `plan` gave it alone.

    Each run would then be on one and the same, and all devices would seem to agree.
    """
    manifest = run.info.manifest
    shown = child_environment(plan, os.environ)
    moved = [n for n in VISIBLE if manifest.get("environment", {}).get(n) != shown.get(n)]
    if moved:
        raise UsageError(
            f"{plan.target.label} sets {moved[0]} itself, so that nothing is said of "
            f"{device.name}: let it take the devices that it is shown"
        )
    kind, _, index = device.name.partition(":")
    if kind == "cpu" and manifest.get("platform", {}).get("cpus") != 1:
        raise UsageError(
            f"{plan.target.label} left the core {device.name}: let it run where it is put"
        )
    # A script sees but one CUDA device, whose name is then cuda:0.
    by_name = kind != "cpu" and (kind != "cuda" or plan.target.kind in {"model-file", "class"})
    if index and by_name and device.name not in run.trace.devices():
        raise UsageError(
            f"no op of {plan.target.label} ran on {device.name}: let it take the device that the "
            "variable REPRO_AUDIT_DEVICE names, or screen by a model file"
        )


def at_once(devices: Sequence[Device]) -> int:
    """As many runs as there are devices, but no more than memory is there for."""
    return max(1, min(len(devices), _memory() // _SHARE))


def _cores(index: str) -> list[Device]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not cores:
        raise UsageError(
            "this system lets nobody choose the core that a process runs on; name accelerators"
        )
    if index and int(index) not in cores:
        shown = ", ".join(f"cpu:{core}" for core in cores[:_LISTED])
        more = f" and {len(cores) - _LISTED} more" if len(cores) > _LISTED else ""
        raise UsageError(f"there is no core cpu:{index} here: {shown}{more} are there")
    return [
        Device(f"cpu:{core}", None, {"device": "cpu", "held": (f"core={core}", "threads=1")})
        for core in ([int(index)] if index else cores)
    ]


def _accelerators(kind: str, index: str, here: Machine) -> list[Device]:
    called = here.names.get(kind, [])
    if kind == "mps":
        return [Device(kind, None, {"device": kind})]
    return [
        Device(f"{kind}:{n}", called[n] if n < len(called) else None, {"device": f"{kind}:{n}"})
        for n in ([int(index)] if index else range(here.devices[kind]))
    ]


def _memory() -> int:
    """KiB of memory that could be had, as Linux tells it: of the machine, and of our part of it."""
    found = [8 * _SHARE]
    lines = _read("/proc/meminfo").splitlines()
    told = [line.split() for line in lines if line.startswith("MemAvailable:")]
    if told:
        found = [int(told[0][1])]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        found.append(max(0, int(limit) - int(used)) // 1024)
    return min(found)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
