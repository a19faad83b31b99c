"""Files as memory: tensors of a checkpoint are read where they lie, and nothing is copied."""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repro_audit.engine import ITEMSIZES, View
from repro_audit.errors import CheckpointError

# What zipfile and its decompression raise where an archive is damaged, or of a kind they lack.
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, OverflowError, RuntimeError, ValueError),
)


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
        if strides is None:
            strides = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
        size = ITEMSIZES[dtype]
        reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        sound = all(n >= 0 for n in shape) and all(stride >= 0 for stride in strides)
        end = (offset + reach + 1) * size if math.prod(shape) else 0
        if not sound or offset < 0 or end > self.nbytes or math.prod(shape) * size >= 1 << 63:
            raise CheckpointError(
                f"a tensor of shape {list(shape)} does not fit into {self.what}, which has "
                f"{self.nbytes:,} bytes: the file is damaged. Copy or save it anew."
            )
        return View(self.address + offset * size, shape, strides, size, dtype, self.owner)


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
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return Span.of(b"", str(path))
            return Span.of(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}. Name another file."
        ) from error
