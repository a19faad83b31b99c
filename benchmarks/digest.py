"""How fast the digest is, against a plain read of the same memory and torch.hash_tensor.

    python benchmarks/digest.py [--largest MIB] [--repeats N] [--json FILE]

All contenders are timed in one process, in turn within each repeat, on the same float32 tensor, so
that what else the machine does falls on all of them. A figure is the median of the repeats, with
the least and the greatest. The ratio to the read is taken within each repeat, then its median.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from provenance import provenance
from repro_audit import _engine, engine
from timing import seconds

FLOAT32 = engine.TAGS["float32"]
LEAST_SECONDS = 0.02  # of one timing: small inputs are digested many times


class Producer:
    """An array of another library, shared through DLPack."""

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __dlpack__(self, **how: Any) -> Any:
        return self.held.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.held.__dlpack_device__()


def measure(nbytes: int, repeats: int) -> dict[str, Any]:
    """GB/s of every contender at one size, and the digests' share of the read's speed."""
    t = torch.randint(0, 2**31 - 1, (nbytes // 4,), dtype=torch.int32).view(torch.float32)
    p = t.data_ptr()
    calls: dict[str, Callable[[], object]] = {
        "read_1": lambda: _engine.read_sum(p, nbytes, 1),
        "digest_1": lambda: _engine.digest(p, nbytes, FLOAT32, 0, 1),
        "read_all": lambda: _engine.read_sum(p, nbytes, 0),
        "digest_all": lambda: _engine.digest(p, nbytes, FLOAT32, 0, 0),
        "tensor_digest": lambda: engine.tensor_digest(t),
    }
    if hasattr(torch, "hash_tensor"):
        calls["hash_tensor"] = lambda: torch.hash_tensor(t)
    times = {name: max(1, int(LEAST_SECONDS / seconds(call, 3))) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(call, times[name]))
    result: dict[str, Any] = {"nbytes": nbytes}
    for name, values in taken.items():
        speeds = sorted(nbytes / value / 1e9 for value in values)
        result[name] = {
            "median": statistics.median(speeds),
            "least": speeds[0],
            "greatest": speeds[-1],
        }
    for name in ("1", "all"):
        pairs = zip(taken[f"read_{name}"], taken[f"digest_{name}"], strict=True)
        result[f"ratio_{name}"] = statistics.median(read / digest for read, digest in pairs)
    return result


def element_sizes(mib: int, repeats: int) -> dict[str, float]:
    """The digest's share of the read's speed on all cores, by dtype."""
    octets = torch.randint(0, 255, (mib << 20,), dtype=torch.uint8)
    p, nbytes = octets.data_ptr(), octets.nbytes
    ratios = {}
    for name in ("uint8", "bfloat16", "float32", "float64", "complex128"):
        t = octets.view(getattr(torch, name))
        pairs = [
            (
                seconds(lambda: _engine.read_sum(p, nbytes, 0)),
                seconds(lambda t=t: engine.tensor_digest(t)),
            )
            for _ in range(repeats)
        ]
        ratios[name] = statistics.median(read / digest for read, digest in pairs)
    return ratios


def small_calls(repeats: int) -> dict[str, float]:
    """Microseconds of a call on tensors too small for their bytes to matter."""
    t = torch.randn(4, 4)
    weight = torch.nn.Parameter(t.clone())
    turned = t.t()
    p = t.data_ptr()
    other = Producer(t)
    calls: dict[str, Callable[[], object]] = {
        "_engine.digest, 64 bytes": lambda: _engine.digest(p, 64, FLOAT32),
        "tensor_digest, 4x4": lambda: engine.tensor_digest(t),
        "tensor_digest, 4x4 parameter": lambda: engine.tensor_digest(weight),
        "tensor_digest, 4x4 transposed": lambda: engine.tensor_digest(turned),
        "tensor_digest, __dlpack__": lambda: engine.tensor_digest(other),
    }
    empty = statistics.median(seconds(lambda: None, 20000) for _ in range(repeats))
    return {
        name: 1e6 * (statistics.median(seconds(call, 20000) for _ in range(repeats)) - empty)
        for name, call in calls.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=1024, metavar="MIB", help="default: 1024")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()

    sizes = [1 << shift for shift in range(16, 33, 2) if 1 << shift <= args.largest << 20]
    print(f"engine {engine.name()}, {_engine.usable_cpus()} CPUs, GB/s, median of {args.repeats}\n")
    columns = ("read_1", "digest_1", "ratio_1", "read_all", "digest_all", "ratio_all")
    print("".join(f"{name:>13}" for name in ("KiB", *columns, "hash_tensor")))
    rows = []
    for nbytes in sizes:
        row = measure(nbytes, args.repeats)
        rows.append(row)
        cells = [row[name] for name in columns] + [row.get("hash_tensor", {"median": 0.0})]
        figures = [cell["median"] if isinstance(cell, dict) else cell for cell in cells]
        print(f"{nbytes >> 10:>13}" + "".join(f"{figure:>13.2f}" for figure in figures))
    print()
    ratios = element_sizes(min(256, args.largest), args.repeats)
    print("digest / read by dtype: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))
    print()
    calls = small_calls(args.repeats)
    for name, micros in calls.items():
        print(f"{name:<32}{micros:>7.3f} us")
    if args.json:
        report = {
            **provenance(),
            "unit": "GB/s; calls in microseconds",
            "sizes": rows,
            "dtypes": ratios,
            "calls": calls,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
