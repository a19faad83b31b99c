"""Plants several hundred faults in thirteen programs and audits each; audits clean ones as well.

    python -m benchmarks.planted [--architectures NAMES] [--seed N] [--clean N] [--processes N]
        [--json F]

`--clean` is how many audits each program gets without a fault, `--processes` how many placements
are audited once more with interpreters that are started for each run, as a user's are. Exits with 1
where a placement is not named exactly, or a clean audit not silent.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.planted.judging import Result, in_processes, judged, silent
from benchmarks.planted.placements import (
    ARCHITECTURES,
    Placement,
    Program,
    placements,
    rounded_away,
)
from benchmarks.provenance import provenance


def clean(program: Program, count: int, directory: Path) -> list[Result]:
    """Audits without a fault: other seeds, both levels, each second with a kernel wrapped."""
    kernels = sorted(program.calls)
    return [
        silent(
            program.architecture,
            [
                *("--seed", str(number), "--level", "modules" if number % 4 > 1 else "ops"),
                *(() if number % 4 == 0 else ("--no-confirm",)),
            ],
            directory,
            {"where": "nothing", "op": kernels[number % len(kernels)]} if number % 2 else {},
        )
        for number in range(count)
    ]


def spread(placed: list[Placement], count: int) -> list[Placement]:
    """Some of the placements, of as many kinds and programs as there are."""
    return [placed[at * len(placed) // count] for at in range(count)]


def written(document: dict[str, Any]) -> str:
    """JSON with a line for each result."""
    lines = []
    for name, value in document.items():
        text = json.dumps(value, sort_keys=True)
        if isinstance(value, list):
            text = (
                "[\n  " + ",\n  ".join(json.dumps(item, sort_keys=True) for item in value) + "\n ]"
            )
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def summed(
    results: list[Result], silence: list[Result], started: list[Result], beyond: list[Result]
) -> dict[str, Any]:
    """How many there were of which kind, and how they came out."""
    return {
        "placements": len(results),
        "named exactly": sum(result["ok"] for result in results),
        "by phase": Counter(result["expected"]["phase"] for result in results),
        "by kind": Counter(
            result["plant"].get("kind", result["plant"]["where"]) for result in results
        ),
        "by level": Counter(result["level"] for result in results),
        "clean audits": len(silence),
        "clean runs": sum(2 + result["confirmed as-is"] for result in silence),
        "silent": sum(result["ok"] for result in silence),
        "in processes": {"tried": len(started), "named exactly": sum(r["ok"] for r in started)},
        "rounded away": {
            "tried": len(beyond),
            "named exactly": sum(r["ok"] for r in beyond),
            "silent": sum(r["found"] is None for r in beyond),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clean", type=int, default=8)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    began = time.perf_counter()
    placed: list[Placement] = []
    results: list[Result] = []
    silence: list[Result] = []
    beyond: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        audit = directory / "audit"
        for architecture in options.architectures.split(","):
            program = Program(architecture, directory)
            here = placements(program, options.seed)
            placed += here
            results += [judged(placement, audit) for placement in here]
            beyond += [
                judged(placement, audit) for placement in rounded_away(program, options.seed)
            ]
            silence += clean(program, options.clean, audit)
            print(
                f"{architecture:10} {len(here):3} placements,"
                f" {sum(result['ok'] for result in results[-len(here) :]):3} exact;"
                f" {options.clean} clean, {sum(r['ok'] for r in silence[-options.clean :])} silent"
                f"  ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
        started = [
            judged(placement, audit, in_processes)
            for placement in spread(placed, options.processes)
        ]
    groups = {"placement": results, "clean audit": silence, "placement, in processes": started}
    wrong = [(what, r) for what, group in groups.items() for r in group if not r["ok"]]
    for what, result in wrong:
        print(f"WRONG {what}: {json.dumps(result)}")
    summary = summed(results, silence, started, beyond)
    summary["seconds"] = round(time.perf_counter() - began)
    print(json.dumps(summary, indent=1))
    if options.json is not None:
        document = {
            **provenance(),
            "summary": summary,
            "placements": results,
            "clean": silence,
            "in processes": started,
            "rounded away": beyond,
        }
        options.json.write_text(written(document))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
