"""Writes the program that shows a divergence to others, and sees whether it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from repro_audit import __version__
from repro_audit.audit.isolation import TIMES
from repro_audit.audit.request import AuditRequest
from repro_audit.audit.session import CONFIRM_HASH_SEED
from repro_audit.audit.zoom import Closer
from repro_audit.control.pins import POISON
from repro_audit.diagnose.reproducer import Condition, script_of_call, script_of_program
from repro_audit.errors import ReproAuditError
from repro_audit.model import Audit, Cause, Origin, Reproducer
from repro_audit.trace import Trace

_MEMORY, _STATE = 0, 2
_SCRIPT, _INPUTS = "reproduce.py", "inputs.safetensors"
_TIMEOUT = 600.0
_CHANGES = {
    "hash-seed": {"hash_seed": CONFIRM_HASH_SEED},
    "memory": {"fill": POISON},
    "listings": {"reversed_listings": True},
    "seeds": {"seed": None},
}


class _NothingToShowError(ReproAuditError):
    """Why there can be no reproducer."""


def reproduce(request: AuditRequest, audit: Audit, closer: Closer | None) -> Reproducer:
    """Write a reproducer of what an audit found into the directory that was asked for, and run it.

    An op that varies by itself is called alone, on the inputs that it had; else the program is run
    twice and all ops are compared.
    """
    assert request.reproducer is not None
    place = request.reproducer
    try:
        if request.between_devices:
            raise _NothingToShowError("between devices there is no one program to show it")
        place.mkdir(parents=True, exist_ok=True)
        if audit.verdict == "divergent" and closer is not None:
            script = _of_divergence(request, audit, closer, place)
        else:
            script = _of_confirmation(request, audit, place)
    except (_NothingToShowError, ValueError, OSError) as error:
        return Reproducer(None, None, str(error))
    path = place / _SCRIPT
    path.write_text(script, encoding="utf-8")
    return _tried(path, request.timeout or _TIMEOUT)


def _of_divergence(request: AuditRequest, audit: Audit, closer: Closer, place: Path) -> str:
    assert audit.origin is not None
    explanation, run = audit.explanation, closer.captured
    replay = None if explanation is None else explanation.replay
    if replay is None or not replay.varies or run is None:
        one = other = _condition(request)
        if audit.cause is not None and audit.cause.cls == "uninitialized-memory":
            other = replace(other, fill=POISON)
        return _of_program(request, one, other, audit.origin, audit.cause, place)
    i = run.trace.find(closer.origin.key)
    call = None if i is None else run.trace.call(i)
    if i is None or call is None:
        raise _NothingToShowError("the op's call was not kept")
    script = script_of_call(
        call,
        about=[
            f"{audit.origin.key.op} gives more than one result for the same inputs.",
            *_said(audit.origin, audit.cause, run.trace),
            f"Expected: 1 distinct result in {TIMES} calls. In {replay.calls} calls there were "
            f"{len(replay.counts)}. Exits 1 if there is more than one.",
        ],
        times=TIMES,
    )
    held = {
        f"{name}_{number}": np.frombuffer(run.trace.payload(i, role, number) or b"", np.uint8)
        for name, role, items in (
            ("memory", _MEMORY, call["memory"]),
            ("generator", _STATE, call["generators"]),
        )
        for number in range(len(items))
    }
    save_file(held, place / _INPUTS)
    return script


def _of_confirmation(request: AuditRequest, audit: Audit, place: Path) -> str:
    confirmation, explanation = audit.confirmation, audit.explanation
    if confirmation is None or confirmation.origin is None:
        raise _NothingToShowError("the runs are identical")
    tried = () if explanation is None else explanation.experiments
    changed = next((one.pins[0] for one in tried if one.differs), None)
    if changed is None:
        raise _NothingToShowError("nothing is known that makes the program differ every time")
    one = _condition(request)
    other = replace(one, **_CHANGES[changed])  # type: ignore[arg-type]
    return _of_program(request, one, other, confirmation.origin, confirmation.cause, place)


def _of_program(
    request: AuditRequest,
    one: Condition,
    other: Condition,
    origin: Origin,
    cause: Cause | None,
    place: Path,
) -> str:
    program = os.path.relpath(request.target.path or ".", place)
    about = [
        f"Runs {request.target.label} twice, and says at which op the runs part.",
        *_said(origin, cause, None),
        "Expected: all ops agree. Exits 1 if they do not.",
    ]
    return script_of_program(request.target, program, one, other, about=about)


def _condition(request: AuditRequest) -> Condition:
    as_is = request.mode == "as-is"
    return Condition(
        hash_seed=None if as_is else 0,
        seed=None if as_is else request.seed,
        deterministic=request.mode == "deterministic",
    )


def _said(origin: Origin, cause: Cause | None, trace: Trace | None) -> Sequence[str]:
    key = origin.key
    where = f"step {key.step}, {key.phase}" + (f", module {key.module}" if key.module else "")
    at = f" (at {origin.line})" if origin.line else ""
    said = [f"Found by repro-audit {__version__} at {key.op}: {where}{at}."]
    if cause is not None and cause.evidence:
        said.append(f"Cause ({cause.confidence}): {cause.cls}: {'; '.join(cause.evidence)}.")
    if cause is not None and cause.remedies:
        said.append(f"What helps: {'; '.join(cause.remedies)}.")
    if trace is not None:
        manifest = trace.manifest
        versions = ", ".join(
            f"{k} {v}" for k, v in sorted(manifest.get("versions", {}).items()) if v
        )
        said.append(f"With {versions}.")
    return said


def _tried(path: Path, timeout: float) -> Reproducer:
    """Run it as its reader will: in a process that knows nothing of the audit."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRO_AUDIT")}
    try:
        done = subprocess.run(
            [sys.executable, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Reproducer(str(path), None, f"it took more than {timeout:g} s")
    if done.returncode not in {0, 1} or (done.returncode and not done.stdout.strip()):
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return Reproducer(str(path), None, f"it failed: {last}")
    return Reproducer(str(path), done.returncode == 1, None)
