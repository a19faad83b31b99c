"""The digest beside the hashes that people use, on strided memory, on many small tensors, and
beside torch's own threads.

    python benchmarks/peers.py [--repeats N] [--json FILE]

Needs the extra `[bench]` (xxhash, blake3). All contenders of a table are timed in one process, in
turn within each repeat; ratios are taken within a repeat, then their median.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import blake3
import torch
import xxhash

from provenance import provenance
from repro_audit import _engine, engine
from timing import seconds

FLOAT32 = engine.TAGS["float32"]
LEAST_SECONDS = 0.02

Calls = dict[str, Callable[[], object]]


def ratios(calls: Calls, base: str, repeats: int) -> dict[str, float]:
    """How many times the time of `base` each of the others takes."""
    times = {name: max(1, int(LEAST_SECONDS / seconds(call, 2))) for name, call in calls.items()}
    rounds = [
        {name: seconds(call, times[name]) for name, call in calls.items()} for _ in range(repeats)
    ]
    found = {
        name: statistics.median(taken[name] / taken[base] for taken in rounds) for name in calls
    }
    return {"seconds": statistics.median(taken[base] for taken in rounds), **found}


def hashes(nbytes: int, threads: int, repeats: int) -> dict[str, Any]:
    """The digest and its peers on one contiguous tensor; 0 threads are all cores."""
    t = torch.randint(0, 2**31 - 1, (nbytes // 4,), dtype=torch.int32).view(torch.float32)
    a, p = t.view(torch.uint8).numpy(), t.data_ptr()
    torch.set_num_threads(threads or _engine.usable_cpus())
    workers = threads or blake3.blake3.AUTO
    calls: Calls = {
        "digest": lambda: _engine.digest(p, nbytes, FLOAT32, 0, threads),
        "XXH3-128": lambda: xxhash.xxh3_128_digest(a),
        "BLAKE3": lambda: blake3.blake3(a, max_threads=workers).digest(),
        "SHA-256": lambda: hashlib.sha256(a).digest(),
        "torch.hash_tensor": lambda: torch.hash_tensor(t),
    }
    return {"nbytes": nbytes, "threads": threads, **ratios(calls, "digest", repeats)}


def strided(run: int, repeats: int) -> dict[str, Any]:
    """Every second run of `run` bytes of 128 MiB, against reading as many bytes that lie together.

    The lines between the runs are fetched too where the runs are shorter than a few lines.
    """
    elements = run // 4
    t = torch.zeros((128 << 20) // (2 * run), 2 * elements)[:, :elements]
    p, nbytes = t.data_ptr(), t.nbytes
    flat = t.contiguous()
    calls: Calls = {
        "strided": lambda: engine.tensor_digest(t),
        "read of both": lambda: _engine.read_sum(p, 2 * nbytes, 0),
        "read of as much": lambda: _engine.read_sum(flat.data_ptr(), nbytes, 0),
    }
    return {"run": run, **ratios(calls, "strided", repeats)}


def layouts(repeats: int) -> dict[str, Any]:
    """Common permuted tensors of 64 MiB against a read of their memory."""
    found = {}
    for name, t in {
        "float32 4096x4096 transposed": torch.zeros(4096, 4096).t(),
        "bfloat16 8192x4096 transposed": torch.zeros(8192, 4096, dtype=torch.bfloat16).t(),
        "float32 channels_last 16x64x128x128": torch.zeros(16, 64, 128, 128).to(
            memory_format=torch.channels_last
        ),
        "float32 heads 8x2048x16x64": torch.zeros(8, 2048, 16, 64).transpose(1, 2),
    }.items():
        p, nbytes = t.data_ptr(), t.nbytes
        calls: Calls = {
            "digest": lambda t=t: engine.tensor_digest(t),
            "read": lambda p=p, nbytes=nbytes: _engine.read_sum(p, nbytes, 0),
            "contiguous() and digest": lambda t=t: engine.tensor_digest(t.contiguous()),
        }
        found[name] = ratios(calls, "digest", repeats)
    return found


def many(nbytes: int, repeats: int) -> dict[str, Any]:
    """1,000 tensors in one call against their bytes in one tensor."""
    whole = torch.zeros(1000 * nbytes // 4)
    tensors = list(whole.split(nbytes // 4))
    calls: Calls = {
        "one tensor": lambda: engine.tensor_digest(whole),
        "1,000 tensors": lambda: engine.tensor_digests(tensors),
    }
    return {"nbytes": nbytes, **ratios(calls, "one tensor", repeats)}


def beside_torch(repeats: int) -> dict[str, float]:
    """A matrix product of torch's with and without a digest on all cores before it."""
    a = torch.zeros(64 << 18)
    x = torch.randn(768, 768)
    engine.tensor_digest(a)

    def product() -> None:
        torch.mm(x, x)

    with_digests, without = [], []
    for _ in range(20 * repeats):
        without.append(seconds(product))
        engine.tensor_digest(a)
        with_digests.append(seconds(product))
    return {
        "product": statistics.median(without),
        "ratio after a digest": statistics.median(with_digests) / statistics.median(without),
    }


class Digests(torch.utils.data.Dataset[int]):
    """Items whose loading digests a tensor of 16 MiB: on all cores, in a forked worker."""

    def __init__(self) -> None:
        self.t = torch.zeros(16 << 18)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        return len(engine.tensor_digest(self.t))


def in_workers(repeats: int) -> dict[str, float]:
    """Seconds of digests in two forked loader workers, and of as many in this process."""
    data = Digests()
    engine.tensor_digest(data.t)
    loader = torch.utils.data.DataLoader(
        data,
        num_workers=2,
        multiprocessing_context="fork",
        batch_size=None,
        persistent_workers=True,
    )
    first = seconds(lambda: list(loader))
    here, there = [], []
    for _ in range(repeats):
        here.append(seconds(lambda: [data[i] for i in range(len(data))]))
        there.append(seconds(lambda: list(loader)))
    return {
        "here": statistics.median(here),
        "in workers": statistics.median(there),
        "in workers, starting them": first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    n = args.repeats

    report: dict[str, Any] = provenance()
    report["versions"] |= {name: metadata.version(name) for name in ("xxhash", "blake3")}
    report["unit"] = "times as long as the first of each group; seconds are of that first"

    def show(title: str, found: dict[str, Any]) -> None:
        cells = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
        print(f"{title}: " + ", ".join(cells), flush=True)

    report["hashes"] = []
    for nbytes, threads in ((256 << 10, 1), (256 << 20, 1), (256 << 20, 0)):
        report["hashes"].append(hashes(nbytes, threads, n))
        show("hashes", report["hashes"][-1])
    torch.set_num_threads(_engine.usable_cpus())
    report["strided"] = []
    for run in (8, 32, 128, 256, 1024, 8192):
        report["strided"].append(strided(run, n))
        show("strided", report["strided"][-1])
    report["layouts"] = layouts(n)
    for name, found in report["layouts"].items():
        show(name, found)
    report["many"] = []
    for nbytes in (256, 4 << 10, 16 << 10, 64 << 10):
        report["many"].append(many(nbytes, n))
        show("1,000 tensors", report["many"][-1])
    report["beside torch"] = beside_torch(n)
    show("beside torch", report["beside torch"])
    report["in workers"] = in_workers(n)
    show("in forked loader workers", report["in workers"])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
