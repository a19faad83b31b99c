"""One machine as if it were several: `python -m benchmarks.hardware --json FILE`.

GPT-2 is recorded on two threads with all its tensors, then run again from them by another
instruction set, another MKL, one thread, in bfloat16; a convolutional network by another oneDNN.
Of each: where it first differs, how far it drifts, whether rounding explains that, whose own error
it is, and who is nearer to float64. Takes some 20 minutes and 10 GB of disk. `--only TEXT` does
those comparisons whose name has it, and puts them into FILE in the place of those that are there.
`python -m benchmarks.hardware.table FILE` prints the table of docs/hardware.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance

from repro_audit.engine.tags import ITEMSIZES
from repro_audit.trace import Trace

HERE = Path(__file__).resolve().parent
BASE = {"OMP_NUM_THREADS": "2"}
GPT2 = {
    "ATEN_CPU_CAPABILITY=avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default"},
    "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
    "GPT2_DTYPE=bfloat16": {"GPT2_DTYPE": "bfloat16"},
}
CONVNET = {
    "ONEDNN_MAX_CPU_ISA=AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "ONEDNN_MAX_CPU_ISA=SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def ask(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of repro-audit in `folder`."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "repro_audit", *words],
        cwd=folder,
        env={**os.environ, **BASE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1}:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done


def place(gap: dict[str, Any] | None) -> str | None:
    """Where an event is, in words."""
    if gap is None:
        return None
    key = gap.get("key", gap)
    return f"{key['phase']} {key['module']} {key['op']}".replace("  ", " ")


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The answers of one report."""
    drift, own = report["drift"], report["own_errors"]
    found: dict[str, Any] = {
        "verdict": report["verdict"],
        "events": report["events"],
        "first": place(report["first_divergence"]),
        "reason": report["reason"],
    }
    if drift is not None:
        largest, grown = drift["largest"], drift["amplification"]
        found |= {
            "measured": drift["measured"],
            "beyond_rounding": drift["beyond"],
            "first_beyond": place(drift["first_beyond"]),
            "largest": place(largest),
            "largest_rms": largest and largest["deviation"]["rms"],
            "largest_ulp": largest and largest["deviation"]["max_ulp"],
            "grows_most": grown
            and [grown["factor"], place(grown["before"]), place(grown["after"])],
            "logits_rms": next(
                (g["deviation"]["rms"] for g in drift["layers"] if g["key"]["module"] == "lm_head"),
                None,
            ),
            "losses": drift["steps"] and drift["steps"][0]["losses"],
        }
    if own is not None:
        found |= {
            "own_events": own["events"],
            "own_differing": own["differing"],
            "own_beyond": own["beyond"],
            "own_first": place(own["first"] and own["first"]["gap"]),
            "own_ops": sorted({error["gap"]["key"]["op"] for error in own["errors"]}),
            "nearer": own["nearer"],
        }
    return found


def volume(path: Path) -> dict[str, float]:
    """Bytes of a recording with samples beside those of all that it fingerprinted."""
    with closing(Trace.open(path)) as trace:
        full = sum(
            math.prod(output.spec.shape) * ITEMSIZES.get(output.spec.dtype, 0)
            for i in range(len(trace))
            for output in trace.event(i).outputs
            if output.digest is not None
        )
        events = len(trace)
    return {"events": events, "recording_bytes": path.stat().st_size, "full_bytes": full}


def main() -> None:
    """Record, run again under each change, print and leave the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", metavar="TEXT")
    asked = parser.parse_args()
    before = json.loads(asked.json.read_text()) if asked.only and asked.json else None
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for program, every in (("gpt2", GPT2), ("convnet", CONVNET)):
            changes = {
                name: how for name, how in every.items() if asked.only in f"{program} {name}"
            }
            if not changes:
                continue
            shutil.copy(HERE / f"{program}.py", folder)
            out = ("-q", "-o", f"{program}.audit", "--capture", "full")
            ask(folder, "record", f"{program}.py", *out)
            for change, environment in changes.items():
                words = ("verify", f"{program}.audit", "--same-start", "-q", "--format", "json")
                report = json.loads(ask(folder, *words, **environment).stdout)
                rows[f"{program} {change}"] = summary(report)
                print(f"{program} {change}", json.dumps(rows[f"{program} {change}"]), flush=True)
        if not asked.only:
            (folder / "gpt2.audit").unlink()
            ask(folder, "record", "gpt2.py", "-q", "-o", "steps.audit", STEPS="3")
            rows["volume of 3 steps"] = volume(folder / "steps.audit")
            print(rows["volume of 3 steps"])
    if asked.json:
        found = provenance() | {"comparisons": rows}
        if before is not None:
            anew = {name: provenance() for name in rows}
            found = before | {"comparisons": before["comparisons"] | rows}
            found["made anew"] = before.get("made anew", {}) | anew
        asked.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
