"""Files that a run opens although an earlier run of the audit wrote them."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

_MOST = 100


class Reads:
    """Notes files opened for reading that changed after the audit began and before this run.

    Such a file (a checkpoint, a cache) makes a later run start from another state than the first.
    `since` is the audit's start in seconds of the epoch, or None to note nothing; files below
    `own`, the audit's directory, are ours. An audit hook cannot be removed; it costs one comparison
    a call when it has nothing to do.
    """

    def __init__(self, since: float | None, own: str) -> None:
        self.stale: list[str] = []
        self._since = since
        self._began = time.time()
        stdlib = sysconfig.get_paths()["stdlib"]
        ours = str(Path(__file__).resolve().parent.parent)
        self._skip = (stdlib, sys.prefix, own, ours, "/proc/", "/sys/", "/dev/")

    def install(self) -> None:
        """Begin to note."""
        if self._since is not None:
            sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or len(self.stale) >= _MOST:
            return
        path, mode, flags = args
        if not isinstance(path, str) or path.startswith(self._skip):
            return
        writing = (mode is not None and mode[:1] in {"w", "x", "a"}) or (
            mode is None and flags & (os.O_WRONLY | os.O_RDWR)
        )
        if writing or path in self.stale or self._since is None:
            return
        try:
            found = os.stat(path)  # noqa: PTH116 - an audit hook must stay light
        except OSError:
            return
        if stat.S_ISREG(found.st_mode) and self._since <= found.st_mtime < self._began:
            self.stale.append(path)
