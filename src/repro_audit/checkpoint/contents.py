"""What a checkpoint holds: tensors by name, and what is no tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from repro_audit.checkpoint.memory import reading
from repro_audit.checkpoint.pickled import Made, Named, Outside
from repro_audit.engine import ITEMSIZES, Fingerprints, View, fingerprint, raw_array
from repro_audit.errors import CheckpointError
from repro_audit.model import Fingerprint

# A number, a word or nothing: what is no tensor is told as one of these.
Value = bool | int | float | str | None
_EXACT = 1 << 53
# Of a name, and of a word: what is longer is told by its begin, or its length, and its hash.
_LONGEST_NAME, _LONGEST_WORD = 1000, 10_000
_MOST_WORDS = 5_000_000


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

    @property
    def place(self) -> tuple[object, ...] | None:
        """Where it lies: equal for two names of one tensor. None where it has no element."""
        views = [part.view for part in self.parts]
        if not all(view.numel for view in views):
            return None
        return self.dtype, self.shape, *((view.address, view.strides) for view in views)

    def view(self) -> View:
        """Its elements: where they lie if in one piece, else put together in memory.

        Raises CheckpointError where the parts leave something out.
        """
        first = self.parts[0] if len(self.parts) == 1 else None
        if first is not None and first.view.shape == self.shape and not any(first.begin):
            return first.view
        numel, held = math.prod(self.shape), sum(part.view.numel for part in self.parts)
        if held < numel or min(self.shape, default=0) < 0:
            raise self._incomplete(held)
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
            raise self._incomplete(int(np.count_nonzero(covered)))
        strides = tuple(stride // size for stride in whole.strides)
        return View(whole.ctypes.data, self.shape, strides, size, self.dtype, whole)

    def _incomplete(self, held: int) -> CheckpointError:
        return CheckpointError(
            f"the parts of a tensor of shape {list(self.shape)} hold {held:,} of its "
            f"{math.prod(self.shape):,} elements. Are all files of the checkpoint there?"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: `tensors` by dotted path, in the order met, and `values`, what is no tensor.

    `metadata` is what a format notes of a file; `unread` the files of a directory that are no
    checkpoints. One that was read from fingerprints alone has no tensors.
    """

    path: str
    form: str
    tensors: Mapping[str, Held]
    values: Mapping[str, Value]
    metadata: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    kept: Fingerprints | None = None
    kept_ties: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """The fingerprint of each tensor, under the name that `repro_audit.fingerprint` gives it in
        a state dict: equal where no bit differs. Time: that of reading the file.
        """
        if self.kept is not None:
            return self.kept
        found: dict[str, Fingerprint] = {}
        for name, held in self.tensors.items():
            with reading(f"{name} in {self.path}"):
                found[name] = fingerprint(held.view())
        return Fingerprints(found)

    @cached_property
    def ties(self) -> Mapping[str, str]:
        """Names of memory that goes by another name before: which."""
        if self.kept is not None:
            return self.kept_ties
        first: dict[tuple[object, ...], str] = {}
        found: dict[str, str] = {}
        for name, held in self.tensors.items():
            place = held.place
            if place is not None and first.setdefault(place, name) != name:
                found[name] = first[place]
        return found


def value_of(x: Any) -> Value:
    """What is no tensor as JSON has it: bytes and long words by length and hash, the names of
    classes, integers beyond 2^53 and floats that are not finite in words.
    """
    if isinstance(x, bytes | bytearray):
        return told(f"{len(x):,} bytes, {hash_of(x)}")
    if isinstance(x, str):
        text = encodable(x)
        if len(x) > _LONGEST_WORD:
            return told(f"{len(x):,} characters, {hash_of(text.encode())}")
        return told(repr(text)) if text.startswith("<") else text
    if isinstance(x, float):
        return x if math.isfinite(x) else told(str(x))
    if isinstance(x, int):
        return x if abs(x) <= _EXACT else told(f"{x:#x}")
    if x is None:
        return None
    if isinstance(x, Named):
        return told(encodable(str(x)))
    raise ValueError(f"a {type(x).__name__} where there should be a value")


def told(text: str) -> str:
    """What stands for a value that is no word, and is no word's either."""
    return f"<{text}>"


def name_of(key: Any) -> str:
    """A key as part of a path."""
    said = encodable(key if isinstance(key, str) else words_of(key))
    if len(said) <= _LONGEST_NAME:
        return said
    return f"{said[:_LONGEST_NAME]}... {hash_of(said.encode())}"


def words_of(x: Any) -> str:
    """What is in a set, or is a key, so that what differs is told differently."""
    left = _MOST_WORDS

    def words(x: Any) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("a set, or a key, of too many parts")
        if isinstance(x, tuple | list):
            return f"({', '.join(map(words, x))})"
        if isinstance(x, set | frozenset):
            return f"{{{', '.join(sorted(map(words, x)))}}}"
        if isinstance(x, Mapping):
            return f"{{{', '.join(sorted(f'{words(k)}: {words(v)}' for k, v in x.items()))}}}"
        if isinstance(x, Made):
            held = [part for part in (x.state, x.items, x.entries) if part]
            return f"{words(x.made_by)}{words(x.args)}{words(held) if held else ''}"
        if isinstance(x, Outside):
            return words(x.key)
        return repr(value_of(x)) if isinstance(x, str | bytes) else str(value_of(x))

    return words(x)


def encodable(text: str) -> str:
    """`text` with escapes in the place of what UTF-8 has no bytes for."""
    return text.encode("utf-8", "backslashreplace").decode()


def hash_of(data: bytes | bytearray) -> str:
    """A hash, and its name."""
    return f"BLAKE2b {hashlib.blake2b(data, digest_size=16).hexdigest()}"
