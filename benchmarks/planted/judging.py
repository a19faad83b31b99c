"""Audits a program with a fault in it, and holds the report to the right answer."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.planted import preloaded
from benchmarks.planted.placements import PROGRAM, Placement

CommandLine = Callable[..., int]
Result = dict[str, Any]


def in_processes(words: list[str], *, cwd: Path, env: dict[str, str], out: Path, err: Path) -> int:
    """As `preloaded.command_line`, but with interpreters that are started for each run."""
    command = [sys.executable, "-m", "repro_audit", *words]
    with out.open("wb") as one, err.open("wb") as other:
        pid = os.posix_spawn(
            sys.executable,
            [
                sys.executable,
                "-c",
                f"import os; os.chdir({str(cwd)!r}); os.execv({command[0]!r}, {command!r})",
            ],
            {**os.environ, **env},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, one.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, other.fileno(), 2),
            ],
        )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def audited(
    architecture: str,
    words: list[str],
    directory: Path,
    plant: dict[str, Any],
    command_line: CommandLine = preloaded.command_line,
) -> tuple[int, dict[str, Any], list[dict[str, Any]], str]:
    """Audit a program, with a fault in every second run.

    Exit code, report, what the fault said each time it acted, and what was printed as an error.
    """
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "processes").mkdir(parents=True)
    said = directory / "said"
    env = {
        "PLANT": json.dumps(plant),
        "PLANT_PROCESSES": str(directory / "processes"),
        "PLANT_SAID": str(said),
    }
    out, err = directory / "out", directory / "err"
    words = ["run", str(PROGRAM), "--format", "json", *words, "--", architecture]
    code = command_line(words, cwd=directory, env=env, out=out, err=err)
    text = out.read_text()
    lines = said.read_text().splitlines() if said.exists() else []
    report = json.loads(text) if text.startswith("{") else {}
    return code, report, [json.loads(line) for line in lines], err.read_text()


def judged(
    placement: Placement, directory: Path, command_line: CommandLine = preloaded.command_line
) -> Result:
    """Audit one placement: what was expected, what was found, and what of it is wrong."""
    began = time.perf_counter()
    words = ["--no-confirm", "--level", placement.level]
    code, report, said, err = audited(
        placement.architecture, words, directory, placement.plant, command_line
    )
    wrong = _wrong(placement, code, report, said)
    found = report.get("first_divergence")
    return {
        "name": placement.name,
        "level": placement.level,
        "plant": placement.plant,
        "expected": {**placement.site, "cause": placement.cause},
        "found": found and {**_site(found), "cause": (report["cause"] or {}).get("class")},
        "ok": not wrong,
        "wrong": wrong if report else [*wrong, err[-2000:]],
        "warnings": [warning["message"] for warning in report.get("warnings", ())],
        "seconds": round(time.perf_counter() - began, 2),
    }


def silent(architecture: str, words: list[str], directory: Path, plant: dict[str, Any]) -> Result:
    """Audit a program without a fault: it must be called identical, and nothing warned of."""
    began = time.perf_counter()
    code, report, said, err = audited(architecture, words, directory, plant)
    wrong = []
    if code != 0 or report.get("verdict") != "identical":
        wrong.append(
            f"exit {code}, {report.get('verdict')}: {report.get('first_divergence')} {err}"
        )
    if report.get("warnings"):
        wrong.append(f"warnings: {report['warnings']}")
    if said:
        wrong.append(f"a fault acted: {said}")
    confirmation = report.get("confirmation")
    if confirmation is not None and not confirmation["holds"]:
        wrong.append(f"as-is: {confirmation}")
    return {
        "architecture": architecture,
        "options": words,
        "kernel wrapped": plant.get("op"),
        "confirmed as-is": confirmation is not None,
        "events": report.get("events"),
        "ok": not wrong,
        "wrong": wrong,
        "seconds": round(time.perf_counter() - began, 2),
    }


def _site(found: dict[str, Any]) -> dict[str, Any]:
    fields = ("step", "phase", "module", "op", "call_index", "kind")
    return {name: found[name] for name in fields}


def _wrong(
    placement: Placement, code: int, report: dict[str, Any], said: list[dict[str, Any]]
) -> list[str]:
    """Everything in which a report differs from the right answer."""
    if not said:
        return ["the fault never acted"]
    found = report.get("first_divergence")
    if code != 1 or found is None:
        return [f"exit {code}, {report.get('verdict')}"]
    wrong = [
        f"{name}: {found[name]!r}, not {right!r}"
        for name, right in placement.site.items()
        if found[name] != right
    ]
    cause = (report["cause"] or {}).get("class")
    if placement.cause is not None and cause != placement.cause:
        wrong.append(f"cause: {cause}, not {placement.cause}")
    if placement.output is not None:
        wrong += _wrong_values(placement, found, said[-1])
    return wrong


def _wrong_values(placement: Placement, found: dict[str, Any], said: dict[str, Any]) -> list[str]:
    """What is wrong about the tensor that erred: which, and in which elements, by how much."""
    assert placement.output is not None
    expected: dict[str, Any] = {
        "inputs_identical": True,
        "dtype": placement.output["dtype"],
        "shape": placement.output["shape"],
    }
    if placement.site["op"].startswith(("aten._foreach_", "aten._fused_")):
        # What belongs to the parameters of a list is told by their names.
        expected["output_name"] = placement.output["of"]
    wrong = [
        f"{name}: {found[name]!r}, not {right!r}"
        for name, right in expected.items()
        if found[name] != right
    ]
    ulp = found["ulp"]
    if ulp is None:
        return [*wrong, "no ULP figures"]
    changed, shape = said["changed"], said["shape"]
    first = [int(at) for at in np.unravel_index(changed[0], shape)]
    figures = {"differing": len(changed), "first_index": first}
    if placement.plant["kind"] == "bit":
        figures["max_ulp"] = 1
    if placement.plant["kind"] == "zero":
        figures |= {"signed_zero": 1, "max_ulp": 0}
    return wrong + [
        f"ulp.{name}: {ulp[name]!r}, not {right!r}"
        for name, right in figures.items()
        if ulp[name] != right
    ]
