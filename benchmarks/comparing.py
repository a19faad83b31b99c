"""What comparing recordings of many events takes: `python benchmarks/comparing.py --json FILE`.

Two traces of `--events` events, as a training loop leaves them (1,000 a step), are compared by
the command line: alike, differing from the middle on, and differing everywhere, without values and
with a sample of each tensor. Wall seconds (median of `--repeats`) and the largest resident set.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import provenance
from repro_audit.trace import Writer

_STEP = 1000
_MODULES = 40
_RUN = """
import resource, sys, time
began = time.perf_counter()
from repro_audit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - began, peak * 1024, code, file=sys.stderr)
"""


def write(path: Path, events: int, *, differs: int | None, sample: int) -> None:
    """A trace; from event `differs` on its digests, and a bit of its samples, are others."""
    writer = Writer(path, run=path.stem, plan={"mode": "controlled"})
    sites = [
        writer.site(f"blocks.{at % _MODULES}.layer", f"aten.op{at // _MODULES}.default")
        for at in range(_STEP)
    ]
    spec, code = writer.spec("float32", (sample or 64,), "cpu"), writer.code("train.py:12")
    for site in sites:
        writer.reductions.append((site, spec, 64))
    rng = random.Random(0)
    numbers = bytes(range(1, 5)) * (sample or 1)
    other = numbers[:-4] + bytes((3, 2, 3, 4))
    for i in range(events):
        step, at = divmod(i, _STEP)
        phase = 3 if at < 300 else 4 if at < 900 else 5
        off = differs is not None and i >= differs
        writer.events.append((i, 0, step, phase, 0, sites[at], 0, code, None, 0))
        writer.outputs.append((i, 0, spec, rng.randbytes(15) + bytes((off,)), None))
        if sample:
            writer.samples.append((i, 0, other if off else numbers))
        if i % 20_000 == 0:
            writer.flush()
    closing = {"events": events, "steps": events // _STEP, "outcome": "finished"}
    writer.close(manifest={}, closing=closing)


def measure(a: Path, b: Path) -> tuple[float, int, int]:
    """Seconds, bytes and exit code of one comparison."""
    words = [sys.executable, "-c", _RUN, "compare", str(a), str(b), "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, peak, code = done.stderr.split()[-3:]
    return float(seconds), int(peak), int(code)


def main() -> None:
    """Write the traces, compare them, print a table and leave the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sample in (0, 64):
            base = Path(folder) / f"base-{sample}.audit"
            write(base, asked.events, differs=None, sample=sample)
            for name, differs in (("nowhere", None), ("half", asked.events // 2), ("all", 0)):
                path = Path(folder) / f"{name}-{sample}.audit"
                write(path, asked.events, differs=differs, sample=sample)
                found = [measure(base, path) for _ in range(asked.repeats)]
                rows.append(
                    {
                        "events": asked.events,
                        "sampled_elements": sample,
                        "differs": name,
                        "seconds": round(statistics.median(s for s, _, _ in found), 3),
                        "peak_bytes": max(peak for _, peak, _ in found),
                        "trace_bytes": path.stat().st_size,
                        "exit_code": found[0][2],
                    }
                )
                print(rows[-1], flush=True)
                path.unlink()
            base.unlink()
    if asked.json:
        found = provenance() | {"comparisons": rows}
        asked.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
