"""What a checkpoint holds: tensors by name, and what is no tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from repro_audit.engine import ITEMSIZES, Fingerprints, View, fingerprint, raw_array
from repro_audit.errors import CheckpointError
from repro_audit.model import Fingerprint

# A number, a word or nothing: what is no tensor is told as one of these.
Value = bool | int | float | str | None
_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a tensor, and the index at which it begins."""

    begin: tuple[int, ...]
    view: View


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of a checkpoint, which may lie in several parts."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @staticmethod
    def of(view: View) -> Held:
        """A tensor in one piece."""
        return Held(view.dtype, view.shape, (Part((0,) * len(view.shape), view),))

    def view(self) -> View:
        """Its elements: where they lie if in one piece, else put together in memory.

        Raises CheckpointError where the parts leave something out.
        """
        if len(self.parts) == 1 and self.parts[0].view.shape == self.shape:
            return self.parts[0].view
        size = ITEMSIZES[self.dtype]
        # Complex numbers and the like are moved, not looked at.
        whole = np.empty(self.shape, np.dtype((np.void, size)))
        covered = np.zeros(self.shape, bool)
        for part in self.parts:
            shape = part.view.shape
            box = tuple(slice(b, b + n) for b, n in zip(part.begin, shape, strict=True))
            into = whole[box]
            if into.shape != shape or part.view.dtype != self.dtype:
                raise CheckpointError(
                    f"a part of a tensor of shape {list(self.shape)} does not fit into it. Save "
                    "the checkpoint anew."
                )
            into[...] = raw_array(part.view)
            covered[box] = True
        if not covered.all():
            raise CheckpointError(
                f"the parts of a tensor of shape {list(self.shape)} hold "
                f"{np.count_nonzero(covered):,} of "
                f"its {whole.size:,} elements. Are all files of the checkpoint there?"
            )
        strides = tuple(stride // size for stride in whole.strides)
        return View(whole.ctypes.data, self.shape, strides, size, self.dtype, whole)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: `tensors` by dotted path, in the order met, and `values`, what is no tensor.

    One that was read from fingerprints alone has no tensors.
    """

    path: str
    form: str
    tensors: Mapping[str, Held]
    values: Mapping[str, Value]
    kept: Fingerprints | None = None

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """The fingerprint of each tensor, under the name that `repro_audit.fingerprint` gives it in
        a state dict: equal where no bit differs. Time: that of reading the file.
        """
        if self.kept is not None:
            return self.kept
        found: dict[str, Fingerprint] = {}
        for name, held in self.tensors.items():
            try:
                found[name] = fingerprint(held.view())
            except CheckpointError as error:
                raise CheckpointError(f"{self.path}: {name}: {error}") from error
        return Fingerprints(found)


def value_of(x: Any) -> Value:
    """What is no tensor as JSON has it: bytes by length and hash, other things by their name.

    Integers beyond 2^53 and floats that are not finite are told in words.
    """
    if isinstance(x, bytes | bytearray):
        return f"{len(x):,} bytes, BLAKE2b {hashlib.blake2b(x, digest_size=16).hexdigest()}"
    if x is None or isinstance(x, str):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else str(x)
    if isinstance(x, int) and abs(x) <= _EXACT:
        return x
    return str(x)
