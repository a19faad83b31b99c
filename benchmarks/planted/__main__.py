"""Plants several hundred faults in thirteen programs and audits each; audits clean ones as well.

    python -m benchmarks.planted [--architectures NAMES] [--sample] [--seed N] [--clean N]
        [--processes N] [--json F]

`--sample` plants a few faults in each program, of each phase. `--clean` is how many audits each
program gets without a fault, `--processes` how many placements are audited once more with
interpreters that are started for each run, as a user's are. Exits with 1 where a placement is not
named exactly, or a clean audit not silent.
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
    sample,
)
from benchmarks.provenance import provenance

# Groups of results, and those that must come out well.
GROUPS = ("placements", "clean", "in processes", "rounded away")
MUST = GROUPS[:3]


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


def good(results: list[Result]) -> int:
    """How many came out as they are to."""
    return sum(result["ok"] for result in results)


def summed(found: dict[str, list[Result]]) -> dict[str, Any]:
    """How many there were of which kind, and how they came out."""
    placed, silence, away = found["placements"], found["clean"], found["rounded away"]
    return {
        "placements": len(placed),
        "named exactly": good(placed),
        "by phase": Counter(result["expected"]["phase"] for result in placed),
        "by kind": Counter(
            result["plant"].get("kind", result["plant"]["where"]) for result in placed
        ),
        "by level": Counter(result["level"] for result in placed),
        "clean audits": len(silence),
        "clean runs": sum(2 + result["confirmed as-is"] for result in silence),
        "silent": good(silence),
        "in processes": {
            "tried": len(found["in processes"]),
            "named exactly": good(found["in processes"]),
        },
        "rounded away": {
            "tried": len(away),
            "named exactly": good(away),
            "silent": sum(result["found"] is None for result in away),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clean", type=int, default=8)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    began = time.perf_counter()
    placed: list[Placement] = []
    found: dict[str, list[Result]] = {name: [] for name in GROUPS}

    def save() -> dict[str, Any]:
        summary = {**summed(found), "seconds": round(time.perf_counter() - began)}
        if options.json is not None:
            options.json.write_text(written({**provenance(), "summary": summary, **found}))
        return summary

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        audit = directory / "audit"
        for architecture in options.architectures.split(","):
            program = Program(architecture, directory)
            here = (sample if options.sample else placements)(program, options.seed)
            placed += here
            named = [judged(placement, audit) for placement in here]
            silence = clean(program, options.clean, audit)
            found["placements"] += named
            found["clean"] += silence
            if not options.sample:
                away = rounded_away(program, options.seed)
                found["rounded away"] += [judged(placement, audit) for placement in away]
            print(
                f"{architecture:10} {len(here):3} placements, {good(named):3} exact;"
                f" {len(silence)} clean, {good(silence)} silent"
                f"  ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
            # The whole takes long: what there is is kept.
            save()
        found["in processes"] = [
            judged(placement, audit, in_processes)
            for placement in spread(placed, options.processes)
        ]
    summary = save()
    wrong = [(name, r) for name in MUST for r in found[name] if not r["ok"]]
    for name, result in wrong:
        print(f"WRONG, {name}: {json.dumps(result)}")
    print(json.dumps(summary, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
