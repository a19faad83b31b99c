"""How fast the engine is on a CUDA device, against what the device's memory gives.

    python -m benchmarks.gpu [--largest MIB] [--repeats N] [--json FILE]

`copy` is torch's copy within the device, counting what is read and what is written; `read` is
torch's sum of the same bytes as float32. Times are of the device's, by events around a number of
calls, without the host's wait for the answer, except for `tensor_digest`, which is timed by the
host's clock with it. All contenders are timed in turn within each repeat; a figure is the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.provenance import provenance

from repro_audit import _cuda, engine

TIMES = 20


def device_seconds(call: Callable[[], object]) -> float:
    """Seconds on the device of one call, from TIMES in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(TIMES):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / TIMES


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, all of them in turn within each repeat."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(device_seconds(call))
    return {name: statistics.median(values) for name, values in taken.items()}


def queue() -> tuple[int, int]:
    """Device and stream of the launches."""
    return torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream


def strided(t: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    """A launch of the digest's kernel."""
    shape, strides = tuple(t.shape), t.stride()
    return lambda: _cuda.add_strided(
        t.data_ptr(), shape, strides, t.itemsize, 0, out.data_ptr(), *queue()
    )


def sizes(mib: int, repeats: int) -> dict[str, Any]:
    """One size: digest, multiset and ULP divergence beside the read, the copy and hash_tensor."""
    nbytes = mib << 20
    t = torch.randint(0, 2**31 - 1, (nbytes // 4,), dtype=torch.int32, device="cuda")
    floats = t.view(torch.float32)
    near, far = floats.clone(), (t ^ 1).view(torch.float32)
    near[123] = 0
    other = torch.empty_like(t)
    out = torch.zeros(2, dtype=torch.int64, device="cuda")
    rows = torch.empty(
        _cuda.compare_records(len(t), queue()[0]) * _cuda.RECORD_BYTES,
        dtype=torch.uint8,
        device="cuda",
    )

    def ulp(b: torch.Tensor) -> Callable[[], object]:
        return lambda: _cuda.compare(
            engine.TAGS["float32"],
            floats.data_ptr(),
            b.data_ptr(),
            len(t),
            rows.data_ptr(),
            *queue(),
        )

    wide = t.view(-1, 64)[:, :32]  # runs of 128 bytes
    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: other.copy_(t),
        "read": floats.sum,
        "digest": strided(t, out),
        "digest_offset_4": strided(t[1:], out),
        "digest_bf16_offset_2": strided(t.view(torch.bfloat16)[1:], out),
        "digest_runs_128": strided(wide, out),
        "digest_transposed_4096": strided(t[: 1 << 24].view(4096, 4096).t(), out)
        if len(t) >= 1 << 24
        else strided(t, out),
        "multiset": lambda: _cuda.add_multiset(
            t.data_ptr(), (len(t),), (1,), 4, 0, out.data_ptr(), *queue()
        ),
        "ulp_same": ulp(near),
        "ulp_all": ulp(far),
        "hash_tensor": lambda: torch.hash_tensor(floats),
    }
    moved = {
        "copy": 2 * nbytes,
        "digest_runs_128": nbytes // 2,
        "digest_transposed_4096": min(nbytes, 1 << 26),
        "ulp_same": 2 * nbytes,
        "ulp_all": 2 * nbytes,
    }
    found = medians(calls, repeats)
    rates = {name: moved.get(name, nbytes) / s / 1e9 for name, s in found.items()}
    ceiling = max(rates["copy"], rates["read"])
    return {
        "MiB": mib,
        "GB/s": rates,
        "of the ceiling": {name: rate / ceiling for name, rate in rates.items()},
    }


def gpt2(repeats: int) -> dict[str, Any]:
    """The parameters of GPT-2 small's shapes, several times over, in one launch."""
    layer = [(768, 2304), (2304,), (768, 768), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    shapes = [(50_257, 768), (1024, 768), *[*layer, (768,), (768,), (768,), (768,)] * 12]
    tensors = [torch.randn(shape, device="cuda") for shape in (shapes * 7)[:1000]]
    total = sum(t.nbytes for t in tensors)
    places = [(t.data_ptr(), t.nbytes) for t in tensors]
    out = torch.zeros(2 * len(tensors), dtype=torch.int64, device="cuda")
    whole = torch.empty(total // 4, device="cuda")
    found = medians(
        {
            "read": whole.sum,
            "table": lambda: _cuda.add_table(places, 0, out.data_ptr(), *queue()),
        },
        repeats,
    )
    return {"bytes": total, "seconds": found, "of the read": found["read"] / found["table"]}


def host(repeats: int) -> dict[str, float]:
    """Microseconds of the host's time: a launch, and a whole tensor_digest of 4 KiB."""
    t = torch.randn(1024, device="cuda")
    out = torch.zeros(2, dtype=torch.int64, device="cuda")
    launch = strided(t, out)
    found = {}
    for name, call in (("launch", launch), ("tensor_digest", lambda: engine.tensor_digest(t))):
        call()
        taken = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(100):
                call()
            taken.append((time.perf_counter() - start) / 100 * 1e6)
        found[name] = statistics.median(taken)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=4096, metavar="MIB")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "provenance": provenance() | {"device": torch.cuda.get_device_name()},
        "sizes": [
            sizes(mib, given.repeats) for mib in (1, 16, 256, 1024, 4096) if mib <= given.largest
        ],
        "gpt2_1000": gpt2(given.repeats),
        "host_us": host(given.repeats),
    }
    print(result["provenance"]["device"])
    for row in result["sizes"]:
        print(f"\n{row['MiB']} MiB")
        for name, rate in row["GB/s"].items():
            print(f"  {name:24}{rate:9.0f} GB/s{row['of the ceiling'][name]:8.2f}")
    print(f"\n1,000 of GPT-2's tensors: {result['gpt2_1000']['of the read']:.2f} of the read")
    print("host, us:", {name: round(us, 1) for name, us in result["host_us"].items()})
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
