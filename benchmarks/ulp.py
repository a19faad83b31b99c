"""How fast ULP divergence is, against a plain read of both tensors and what users do today.

    python benchmarks/ulp.py [--mib MIB] [--repeats N] [--json FILE]

All contenders are timed in one process, in turn within each repeat, on the same pair of tensors:
one in which few elements differ, one in which all differ by some ULP, one of unrelated numbers. A
ratio is taken within each repeat, then its median.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from provenance import provenance
from repro_audit import _engine, engine
from timing import seconds

DTYPES = {
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def numpy_idiom(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance as it is commonly computed: bits as ordered integers, subtracted."""
    x, y = a.view(np.int32).astype(np.int64), b.view(np.int32).astype(np.int64)
    x = np.where(x < 0, -(x & 0x7FFFFFFF), x)
    y = np.where(y < 0, -(y & 0x7FFFFFFF), y)
    return int(np.abs(x - y).max())


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """`assert_close` that holds, so that no message is made: the tolerance is infinite."""
    torch.testing.assert_close(a, b, rtol=0.0, atol=float("inf"))


def pairs(dtype: torch.dtype, numel: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pairs to compare, by what is special about them."""
    g = torch.Generator().manual_seed(0)
    bits = DTYPES[dtype]
    a = torch.randn(numel, generator=g).to(dtype)
    few = a.clone()
    few.view(bits)[::1_000_003] ^= 1
    moved = a.view(bits) + torch.randint(1, 5, (numel,), generator=g).to(bits)
    return {
        "few differ": (a, few),
        "all differ": (a, moved.view(dtype)),
        "unrelated": (a, torch.randn(numel, generator=g).to(dtype)),
    }


def measure(a: torch.Tensor, b: torch.Tensor, repeats: int) -> dict[str, Any]:
    """GB/s of both tensors' bytes, and the ratios to the contenders."""
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: [_engine.read_sum(t.data_ptr(), t.nbytes) for t in (a, b)],
        "compare": lambda: engine.compare(a, b),
        "assert_close": lambda: close(a, b),
    }
    if a.dtype == torch.float32:
        x, y = a.numpy(), b.numpy()
        calls["numpy"] = lambda: numpy_idiom(x, y)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        calls["read"]()  # the caches as after a read, not as after NumPy's temporaries
        for name, call in calls.items():
            taken[name].append(seconds(call))
    result: dict[str, Any] = {"gb_per_s": {}, "ratio": {}}
    ours = taken["compare"][1:]  # the first round warms caches and pages
    for name, values in taken.items():
        result["gb_per_s"][name] = (a.nbytes + b.nbytes) / statistics.median(values[1:]) / 1e9
        result["ratio"][name] = statistics.median(
            other / own for other, own in zip(values[1:], ours, strict=True)
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="of each tensor; default: 256")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="default: 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()

    print(f"engine {engine.name()}, {args.mib} MiB a side, median of {args.repeats}\n")
    print(f"{'':24}{'GB/s':>8}{'of read':>9}{'x assert_close':>16}{'x NumPy':>9}")
    rows = []
    for dtype in DTYPES:
        for name, (a, b) in pairs(dtype, (args.mib << 20) // dtype.itemsize).items():
            row = measure(a, b, args.repeats)
            ratio = row["ratio"]
            label = f"{str(dtype).removeprefix('torch.')}, {name}"
            numpy = f"{ratio['numpy']:>9.1f}" if "numpy" in ratio else ""
            print(
                f"{label:24}{row['gb_per_s']['compare']:>8.1f}{ratio['read']:>9.2f}"
                f"{ratio['assert_close']:>16.1f}{numpy}"
            )
            rows.append({"dtype": str(dtype), "pair": name, **row})
    if args.json:
        report = {**provenance(), "mib": args.mib, "pairs": rows}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
