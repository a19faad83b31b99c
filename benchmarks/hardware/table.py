"""The table of docs/hardware.md: `python -m benchmarks.hardware.table FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_HEAD = (
    "changed",
    "events that differ",
    "the first",
    "logits, of their size",
    "err by themselves",
    "beyond rounding",
    "nearer to float64: here, there, neither",
)


def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    """One comparison in words."""
    program, _, change = name.partition(" ")
    phase, *module, op = found["first"].split()
    op = op.removeprefix("aten.").removesuffix(".default")
    logits, nearer = found["logits_rms"], found["nearer"]
    return (
        f"{'GPT-2' if program == 'gpt2' else 'convnet'}, `{change}`",
        f"{found['events']['divergent']:,} of {found['events']['compared']:,}",
        " ".join((phase, *(f"`{part}`" for part in module), op)),
        "" if logits is None else f"{logits:.1e}".replace("e-0", "e-"),
        f"{found['own_differing']:,} of {found['own_events']:,}",
        f"{found['own_beyond']:,}",
        ", ".join(f"{nearer.get(who, 0):,}" for who in ("here", "there", "neither")),
    )


def main() -> None:
    """Print the table of a file that `benchmarks.hardware` has written."""
    comparisons = json.loads(Path(sys.argv[1]).read_text())["comparisons"]
    rows = [row(name, found) for name, found in comparisons.items() if "first" in found]
    for cells in (_HEAD, ("---",) * len(_HEAD), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
