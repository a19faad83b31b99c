"""Reports as files: whole, or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def write_whole(text: str, path: Path) -> None:
    """Write `text` to `path`; where that fails what was there stays, and nothing else is left.

    What is no plain file (a pipe, a terminal) is written as it is. Raises OSError.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    # A link stays one: its target is replaced.
    place = path.resolve()
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(place, partial)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
