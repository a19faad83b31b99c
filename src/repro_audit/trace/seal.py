"""The seal at a trace's end: SQLite checks its structure, not its contents.

After the last page stand 8 bytes of magic and the 16-byte BLAKE2b of all bytes before them. SQLite
counts whole pages only and never looks there, so a sealed file is an ordinary database.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MAGIC = b"RAudSeal"
_DIGEST = 16
SIZE = len(MAGIC) + _DIGEST
_BLOCK = 1 << 20


def seal(path: Path) -> None:
    """Append the seal to a closed database. Raises OSError."""
    with path.open("r+b") as file:
        digest = _digest(file.fileno(), path.stat().st_size)
        file.seek(0, os.SEEK_END)
        file.write(MAGIC + digest)


def intact(path: Path) -> bool | None:
    """True if every byte is as it was sealed, None if there is no seal at all. Raises OSError.

    Reads the whole file, about 1 GB/s.
    """
    size = path.stat().st_size - SIZE
    if size < 0:
        return None
    with path.open("rb") as file:
        digest = _digest(file.fileno(), size)
        found = os.pread(file.fileno(), SIZE, size)
    if not found.startswith(MAGIC):
        return None
    return found[len(MAGIC) :] == digest


def _digest(descriptor: int, size: int) -> bytes:
    state = hashlib.blake2b(digest_size=_DIGEST)
    for at in range(0, size, _BLOCK):
        state.update(os.pread(descriptor, min(_BLOCK, size - at), at))
    return state.digest()
