"""Makes the finished examples beside this file: `python docs/examples/make.py [NAME…]`.

`flaky-embedding` is a training run that diverges, explained; `gpt2-avx2` GPT-2 recorded on AVX-512
and run again by AVX2 from the same start (some five minutes and 9 GB of disk); `gpt2-matrix` is a
small GPT-2 under several conditions. Needs the extra `report` and, for GPT-2, transformers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Two threads, as on the machine that made those that are kept.
_BASE = {"OMP_NUM_THREADS": "2", "COLUMNS": "80"}


def ask(folder: Path, *words: str, **environment: str) -> None:
    """A command of repro-audit in `folder`; a divergence is what is to be shown."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "repro_audit", *words],
        cwd=folder,
        env={**os.environ, **_BASE, **environment},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in {0, 1}:
        sys.exit(f"repro-audit {' '.join(words)} ended with {done.returncode}")


def leave(folder: Path, name: str, *formats: str) -> None:
    """The latest audit in `folder`, in each format, beside this file."""
    suffixes = {"html": "html", "markdown": "md", "json": "json"}
    for format_ in formats:
        place = HERE / f"{name}.{suffixes[format_]}"
        ask(folder, "report", "--format", format_, "-o", str(place), "--force")
        # Where it was made is nobody's business.
        place.write_text(place.read_text("utf-8").replace(str(folder), "~/audits"), "utf-8")
        print(place.relative_to(ROOT))


def flaky_embedding(folder: Path) -> None:
    """A training run that diverges, with its cause proven and a cure."""
    shutil.copy(ROOT / "examples" / "flaky_embedding.py", folder)
    ask(folder, "flaky_embedding.py", "--explain", "-q")
    leave(folder, "flaky-embedding", "html", "markdown")


def gpt2_avx2(folder: Path) -> None:
    """GPT-2 on two instruction sets: drift, own and inherited error."""
    shutil.copy(ROOT / "benchmarks" / "hardware" / "gpt2.py", folder)
    ask(folder, "record", "gpt2.py", "-q", "-o", "avx512.audit", "--capture", "full")
    words = ("verify", "avx512.audit", "--same-start", "-q")
    ask(folder, *words, ATEN_CPU_CAPABILITY="avx2")
    leave(folder, "gpt2-avx2", "html", "markdown", "json")


def gpt2_matrix(folder: Path) -> None:
    """Which conditions change the bits of a small GPT-2."""
    shutil.copy(ROOT / "examples" / "gpt2_config.py", folder)
    axes = (
        "threads=1,2",
        "isa=avx512,avx2,default",
        "batch=4,1",
        "compile=eager,aot_eager,inductor",
    )
    ask(
        folder,
        "matrix",
        "gpt2_config.py",
        "-q",
        *(word for axis in axes for word in ("--vary", axis)),
    )
    leave(folder, "gpt2-matrix", "html", "markdown")


EXAMPLES = {
    "flaky-embedding": flaky_embedding,
    "gpt2-avx2": gpt2_avx2,
    "gpt2-matrix": gpt2_matrix,
}


def main() -> None:
    """Make those that are named, or all."""
    asked = sys.argv[1:] or list(EXAMPLES)
    unknown = set(asked) - set(EXAMPLES)
    if unknown:
        sys.exit(f"no example {min(unknown)}; there are {', '.join(EXAMPLES)}")
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            EXAMPLES[name](Path(folder).resolve())


if __name__ == "__main__":
    main()
