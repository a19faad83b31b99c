"""What torch finds on this machine, told by a process of its own: `python -m … machine`."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory, put there by `-m`: no file in it may stand in for torch.
    del sys.path[0]

from repro_audit.errors import UsageError

_TIMEOUT = 120.0
# As messages and help have them.
NAMES = "cpu, cuda, cuda:N, xpu, xpu:N, mps or what a maker's package adds to torch (npu, hpu:N)"


@dataclass(frozen=True, slots=True)
class Machine:
    """`capability` is what ATen computes with here if nobody asks for less, such as `avx512`;
    `devices` how many of each kind of accelerator there are, `names` what these are called, as far
    as torch tells.
    """

    capability: str
    devices: dict[str, int]
    names: dict[str, list[str]] = field(default_factory=dict)

    def check(self, device: str) -> None:
        """Raise UsageError unless torch finds an accelerator of that name (`cuda`, `cuda:1`)."""
        kind, _, index = device.partition(":")
        if int(index or 0) >= self.devices.get(kind, 0):
            there = [f"{name} ({n})" for name, n in sorted(self.devices.items()) if n]
            raise UsageError(
                f"torch finds no device {device} here. There are: {', '.join(['cpu', *there])}"
            )


def known(device: str) -> bool:
    """Whether that names a device: one of torch's, here or not, or one that another maker's
    package adds to torch here (`npu`, `hpu:1`). Asks torch, as `machine` does, only for the latter.
    """
    if re.fullmatch(r"cpu|mps|(cuda|xpu|mtia)(:\d+)?", device):
        return True
    added = re.fullmatch(r"([a-z][a-z0-9_]*)(:\d+)?", device)
    return added is not None and added[1] != "cpu" and added[1] in _kinds()


@functools.cache
def _kinds() -> frozenset[str]:
    return frozenset(machine().devices)


def machine() -> Machine:
    """Ask torch; takes as long as to import it. Raises UsageError where that fails."""
    environment = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "repro_audit.replicate.machine"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise UsageError(f"torch cannot be imported here: {' '.join(said)}") from error
    return Machine(**json.loads(answer.stdout.splitlines()[-1]))


def _found() -> dict[str, Any]:
    import torch

    from repro_audit import engine

    devices: dict[str, int] = {}
    names = {}
    for kind in engine.accelerator_kinds():
        module = getattr(torch, kind)
        available = torch.backends.mps if kind == "mps" else module
        devices[kind] = module.device_count() if available.is_available() else 0
        if devices[kind]:
            names[kind] = engine.device_names(kind)
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return {"capability": capability, "devices": devices, "names": names}


if __name__ == "__main__":
    print(json.dumps(_found()))
