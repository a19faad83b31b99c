"""Files as memory: tensors of a checkpoint are read where they lie, and nothing is copied."""

from __future__ import annotations

import errno
import io
import mmap
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repro_audit.engine import ITEMSIZES, View
from repro_audit.errors import CheckpointError, UnsupportedTensorError

# What reading a file ends in that says one thing and holds another.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError),
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError, UnsupportedTensorError),
)
# NumPy's limit of dimensions.
_DIMENSIONS = 64
# A tensor that is larger than its storage was expanded from it: to more than this in no program.
_EXPANDED = 1 << 36


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Whatever goes wrong within is a CheckpointError that names `what`."""
    try:
        yield
    except CheckpointError as error:
        if what in str(error):
            raise
        raise CheckpointError(f"{what}: {error}") from error
    except MemoryError as error:
        raise CheckpointError(
            f"{what} says that it holds more than there is memory for: it is damaged, or needs a "
            "larger machine."
        ) from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{what} is damaged, or of a kind that is not read ({type(error).__name__}: {error}). "
            "Copy it again, or save it anew."
        ) from error


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes in this process's memory, and what they are called; `owner` keeps them."""

    address: int
    nbytes: int
    owner: np.ndarray[tuple[int], np.dtype[np.uint8]]
    what: str

    @staticmethod
    def of(memory: bytes | mmap.mmap, what: str) -> Span:
        """All of `memory`."""
        owner = np.frombuffer(memory, np.uint8)
        return Span(owner.ctypes.data, len(owner), owner, what)

    def within(self, start: int, nbytes: int, what: str) -> Span:
        """A part of it; raises CheckpointError where it has no such part."""
        if start < 0 or nbytes < 0 or start + nbytes > self.nbytes:
            raise CheckpointError(
                f"{what} lies beyond the end of {self.what}, which has {self.nbytes:,} bytes: the "
                "file is damaged or was not written to its end. Copy or save it anew."
            )
        return Span(self.address + start, nbytes, self.owner[start : start + nbytes], what)

    def bytes(self) -> bytes:
        """A copy of them."""
        return self.owner.tobytes()

    def view(
        self,
        dtype: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> View:
        """A tensor in it, from element `offset` on, row by row where it has no `strides`.

        Raises CheckpointError where it reaches beyond the span.
        """
        strides = _row_by_row(shape) if strides is None else strides
        size, numel = ITEMSIZES[dtype], 1
        for length in shape[:_DIMENSIONS]:
            numel *= length
        sound = (
            len(shape) <= _DIMENSIONS
            and all(type(n) is int and n >= 0 for n in (*shape, *strides, offset))
            and numel * size <= max(self.nbytes, _EXPANDED)
        )
        reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if not sound or (numel and (offset + reach + 1) * size > self.nbytes):
            told = list(shape[:8]) if len(shape) <= 8 else f"{len(shape)} dimensions"
            raise CheckpointError(
                f"a tensor of shape {told} does not fit into {self.what}, which has "
                f"{self.nbytes:,} bytes: the file is damaged. Copy or save it anew."
            )
        begin = self.address + offset * size if numel else self.address
        return View(begin, shape, strides, size, dtype, self.owner)


def _row_by_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for length in reversed(shape[:_DIMENSIONS]):
        strides.append(step)
        step *= length
    # Longer ones are refused.
    return (*reversed(strides), *shape[_DIMENSIONS:])


class Reading(io.RawIOBase):
    """A span as a file that can be read."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self._bytes = memoryview(span.owner.data)
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        self._at = max(0, offset + (0, self._at, len(self._bytes))[whence])
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read what is next."""
        taken = self._bytes[self._at : self._at + len(buffer)]
        buffer[: len(taken)] = taken
        self._at += len(taken)
        return len(taken)


def mapped(path: Path) -> Span:
    """A file's bytes, read from the disk as they are looked at."""
    try:
        if not path.is_file():
            there = path.exists()
            raise CheckpointError(
                f"cannot read {path}: {'it is no file' if there else 'it is not there'}. Name "
                "another, or copy all files of the checkpoint."
            )
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return Span.of(b"", str(path))
            return Span.of(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))
    except OSError as error:
        way_out = "Raise the limit: ulimit -n" if error.errno == errno.EMFILE else "Name another."
        raise CheckpointError(f"cannot read {path}: {error.strerror}. {way_out}") from error
