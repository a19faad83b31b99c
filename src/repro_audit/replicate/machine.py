"""What torch finds on this machine, told by a process of its own: `python -m … machine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory, put there by `-m`: no file in it may stand in for torch.
    del sys.path[0]

from repro_audit.errors import UsageError

_TIMEOUT = 120.0


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

    devices = {"cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    devices["mps"] = int(torch.backends.mps.is_available())
    xpu = getattr(torch, "xpu", None)
    devices["xpu"] = xpu.device_count() if xpu is not None and xpu.is_available() else 0
    names = {
        kind: [getattr(torch, kind).get_device_name(n) for n in range(devices[kind])]
        for kind in ("cuda", "xpu")
        if devices[kind]
    }
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return {"capability": capability, "devices": devices, "names": names}


if __name__ == "__main__":
    print(json.dumps(_found()))
