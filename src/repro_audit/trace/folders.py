"""Where the traces of the processes go that a program starts."""

from __future__ import annotations

from pathlib import Path


def processes_of(path: Path) -> list[Path]:
    """The traces of the processes that the program of the trace at `path` started, by name."""
    return sorted(folder_of(path).glob("*.sqlite"))


def folder_of(path: Path) -> Path:
    """Where the traces of the processes go that the program of the trace at `path` starts."""
    return path.with_name(f"{path.name}-processes")
