"""What looking at checkpoints takes: `python benchmarks/checkpoints.py --json FILE`.

Files of `--mib` MiB of weights are written (to `--directory`, where there is room) and read from
the page cache. Against them stand what people do today: SHA-256 of the file, and to compare two,
loading both with torch or safetensors and `torch.equal`. All contenders are
called in turn within each repeat; a figure is the median of wall seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from provenance import provenance
from repro_audit.audit import compare_checkpoints
from repro_audit.checkpoint import open_checkpoint
from timing import seconds

_WIDTH = 1024


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    one = {
        f"layers.{i}.weight": torch.randn(4 * _WIDTH, _WIDTH, generator=generator)
        for i in range(given.mib // 16)
    }
    near = {name: t.clone() for name, t in one.items()}
    last = next(reversed(near))
    near[last] += 1e-7 * near[last].abs()
    far = {name: t * (1 + 1e-6) for name, t in one.items()}
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        places = {name: Path(folder, name) for name in ("a", "b", "near", "far")}
        for name, held in zip(places, (one, one, near, far), strict=True):
            save_file(held, places[name].with_suffix(".safetensors"))
            torch.save(held, places[name].with_suffix(".pt"))
        del one, near, far

        def file(name: str, suffix: str) -> Path:
            return places[name].with_suffix(suffix)

        def compared(name: str, suffix: str) -> Callable[[], object]:
            return lambda: compare_checkpoints([file("a", suffix), file(name, suffix)])

        def loaded(name: str) -> dict[str, torch.Tensor]:
            return torch.load(file(name, ".pt"), weights_only=True)

        calls: dict[str, Callable[[], object]] = {
            "sha256 of the file": lambda: sha256(file("a", ".safetensors")),
            "fingerprint safetensors": lambda: (
                open_checkpoint(file("a", ".safetensors")).fingerprints.composite
            ),
            "fingerprint .pt": lambda: open_checkpoint(file("a", ".pt")).fingerprints.composite,
            "load both, torch.equal: safetensors": lambda: equal(
                load_file(file("a", ".safetensors")), load_file(file("b", ".safetensors"))
            ),
            "load both, torch.equal: .pt": lambda: equal(loaded("a"), loaded("b")),
            "compare, equal: safetensors": compared("b", ".safetensors"),
            "compare, equal: .pt": compared("b", ".pt"),
            "compare, one tensor differs": compared("near", ".safetensors"),
            "compare, all differ": compared("far", ".safetensors"),
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(given.repeats):
            for name, call in calls.items():
                taken[name].append(seconds(call))
    found = {name: statistics.median(each) for name, each in taken.items()}
    for name, took in found.items():
        print(f"{name:38}{took:8.3f} s")
    result = {"provenance": provenance(), "MiB": given.mib, "repeats": given.repeats}
    if given.json:
        given.json.write_text(json.dumps(result | {"seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
