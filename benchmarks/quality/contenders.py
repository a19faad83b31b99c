"""What the battery compares: checksums of a tensor, each as bytes of a fixed length."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from importlib import metadata

import numpy as np
import torch

from repro_audit import engine

Checksum = Callable[[torch.Tensor], bytes]


def hash_tensor(t: torch.Tensor) -> bytes:
    """torch's own checksum, an exclusive or; of bytes where it does not know the dtype."""
    known = t.view(torch.uint8) if t.dtype.is_floating_point and t.itemsize == 1 else t
    return torch.hash_tensor(known).numpy().tobytes()


def l1_norm(t: torch.Tensor) -> bytes:
    """The sum of absolute values in float64, as debugging tools print it; all NaN are one."""
    norm = float(torch.linalg.vector_norm(t.double(), 1))
    return struct.pack(">d", float("nan") if math.isnan(norm) else norm)


def contenders(names: list[str], first: str) -> dict[str, Checksum]:
    """The checksums of these names, after `first`: the digest, or the multiset digest."""
    ours = engine.tensor_digest if first == "digest" else engine.multiset_digest
    found: dict[str, Checksum] = {first: ours}
    if "xxh3" in names:
        import xxhash

        found[f"XXH3-128 (xxhash {metadata.version('xxhash')})"] = lambda t: xxhash.xxh3_128_digest(
            t.view(torch.uint8).numpy()
        )
    if "hash_tensor" in names:
        found["torch.hash_tensor"] = hash_tensor
    if "l1" in names:
        found["L1 norm"] = l1_norm
    return found


def pairs_alike(checksums: np.ndarray, first: int, bits: int) -> int:
    """How many pairs of rows agree in `bits` bits (a multiple of 8) from byte `first`.

    checksums: uint8[n, bytes of one checksum]. Time: that of sorting n rows.
    """
    part = checksums[:, first : first + bits // 8]
    padded = np.zeros((len(part), 16), np.uint8)
    padded[:, 16 - part.shape[1] :] = part
    high, low = padded.view(">u8").T
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    new = np.ones(len(part), bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    counts = np.diff(np.append(np.flatnonzero(new), len(part)))
    return int((counts * (counts - 1) // 2).sum())
