"""Where and how a figure was made: written into every result file."""

from __future__ import annotations

import datetime
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from repro_audit import __version__, _engine, engine


def provenance() -> dict[str, Any]:
    """Command, date, machine, versions and engine of this process."""
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cpus": _engine.usable_cpus(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "repro_audit": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "engine": engine.info(),
    }


def processor() -> str:
    """The CPU's name, as the kernel tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
