"""How good the digest is as a hash: collisions observed beside those expected, beside its peers'.

    python -m benchmarks.quality [--checksum digest|multiset] [--most N] [--seed N] [--peers NAMES]
        [--json F] [--markdown F]

Runs every family of families.py (bags.py for the multiset digest) and compares all its tensors with
one another, by the whole checksum and by truncations of it. A checksum of b bits that behaves as a
random function lets m comparisons collide m / 2^b times. Exits with 1 where two tensors share a
checksum or one of its 64-bit halves, or where a truncation collides more than 6 standard deviations
(and 6) away from what is expected.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.provenance import provenance
from benchmarks.quality.bags import BAGS
from benchmarks.quality.contenders import contenders, pairs_alike
from benchmarks.quality.families import FAMILIES
from benchmarks.quality.markdown import page

# Of the digest, in print order: first byte, bits.
PARTS = {
    "whole, 128 bits": (0, 128),
    "first 64 bits": (0, 64),
    "last 64 bits": (8, 64),
    "first 48 bits": (0, 48),
    "first 32 bits": (0, 32),
    "bits 32 to 63": (4, 32),
    "bits 64 to 95": (8, 32),
    "last 32 bits": (12, 32),
}


# What is measured, its peers that could be asked for the same, and the families.
MEASURED = {
    "digest": ("xxh3,hash_tensor,l1", FAMILIES),
    "multiset": ("hash_tensor,l1", BAGS),
}


def measure(
    family: Any, most: int, seed: int, names: list[str], first: str = "digest"
) -> dict[str, Any]:
    """Collisions of every contender in one family."""
    checksums = contenders(names, first)
    found: dict[str, bytearray] = {name: bytearray() for name in checksums}
    tensors = 0
    for t in family(np.random.default_rng(seed), most):
        for name, checksum in checksums.items():
            found[name] += checksum(t)
        tensors += 1
    result: dict[str, Any] = {
        "family": family.__name__,
        "what": family.__doc__,
        "tensors": tensors,
        "comparisons": tensors * (tensors - 1) // 2,
        "contenders": {},
    }
    for name, data in found.items():
        rows = np.frombuffer(data, np.uint8).reshape(tensors, -1)
        bits = 8 * rows.shape[1]
        result["contenders"][name] = {
            "bits": bits,
            "missed": int((rows[1:] == rows[0]).all(axis=1).sum()),
            "collisions": pairs_alike(rows, 0, bits),
        }
    rows = np.frombuffer(found[first], np.uint8).reshape(tensors, -1)
    result["parts"] = {name: pairs_alike(rows, *part) for name, part in PARTS.items()}
    return result


def faults(result: dict[str, Any]) -> list[str]:
    """What of a family's result a good hash would not show."""
    return [
        f"{result['family']}: {name}: {observed} collisions, {expected:.3g} expected"
        for name, (_, bits) in PARTS.items()
        for observed in [result["parts"][name]]
        for expected in [result["comparisons"] / 2**bits]
        if (observed if bits >= 64 else abs(observed - expected) > 6 * expected**0.5 + 6)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checksum", choices=MEASURED, default="digest", help="what is measured; default: digest"
    )
    parser.add_argument("--most", type=int, default=1 << 19, metavar="N", help="default: 524288")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--peers",
        metavar="NAMES",
        help="compared beside it, or none; default: xxh3 (the digest), hash_tensor, l1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    args = parser.parse_args()

    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    peers, families = MEASURED[args.checksum]
    names = (args.peers or peers).split(",")
    for family in families:
        result = measure(family, args.most, args.seed, names, args.checksum)
        results.append(result)
        wrong += faults(result)
        print(
            f"{result['family']:<22}{result['tensors']:>8} tensors{result['comparisons']:>14.3g}"
            f" comparisons, missed or colliding: "
            + ", ".join(
                f"{name.split()[0]} {found['missed']} {found['collisions']:.3g}"
                for name, found in result["contenders"].items()
            ),
            flush=True,
        )
    for line in wrong:
        print(line, file=sys.stderr)
    report = {
        **provenance(),
        "checksum": args.checksum,
        "seed": args.seed,
        "parts": PARTS,
        "families": results,
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(page(report), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
