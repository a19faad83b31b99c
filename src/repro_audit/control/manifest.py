"""The manifest: under what conditions a run ran, as asked for and as found at its end."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from repro_audit.control.environment import KNOBS
from repro_audit.control.settings import torch_settings
from repro_audit.model import Plan

_PACKAGES = ("repro-audit", "torch", "numpy", "transformers", "lightning", "accelerate", "triton")


def collect(plan: Plan, engine: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known to decide a run's bits; JSON-able, the same for the same conditions.

    Called at the end of the run, in its process. `engine` is `engine.info()`. What torch was not
    there to tell is null; what it refuses to tell is `unreadable: ...`. Initialises no device.
    Takes some 10 ms, most of it git's. Keys are sorted.
    """
    torch = sys.modules.get("torch")
    found: dict[str, Any] = _sorted(
        {
            "run": plan.run,
            "asked": {
                "mode": plan.mode,
                "seed": None if plan.mode == "as-is" else plan.seed,
                "hash_seed": plan.hash_seed,
                "poison": plan.poison,
                "pins": list(plan.pins),
                "held": list(plan.held),
                "batch": plan.batch,
                "dtype": plan.dtype,
                "compile": plan.compile,
                "device": plan.device,
                "level": plan.level,
                "steps": plan.steps,
            },
            "target": {
                "label": plan.target.label,
                "arguments": list(plan.target.args),
                "inputs": list(plan.target.inputs),
                "sha256": _sha256(plan.target.path),
            },
            "versions": _versions(torch_imported=torch is not None),
            "platform": {
                "system": platform.system(),
                "release": platform.release(),
                "machine": platform.machine(),
                "processor": _processor(),
                "cpus": len(os.sched_getaffinity(0)),
                "libc": " ".join(platform.libc_ver()),
            },
            "directory": os.getcwd(),  # noqa: PTH109
            "commit": _commit(),
            "engine": dict(engine),
            "environment": {name: os.environ.get(name) for name in KNOBS},
            "torch": None if torch is None else torch_settings(torch),
        }
    )
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value


def _versions(*, torch_imported: bool) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}"
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if torch_imported:
        # The metadata's version may lack the build: "+cu130".
        found["torch"] = str(sys.modules["torch"].__version__)
    else:
        found["torch"] = None
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _sha256(path: str) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None
    except OSError:
        # The program may have moved or removed it, or gone to another directory.
        return None


def _commit() -> str | None:
    """The commit of the working directory, if git is there and knows one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
