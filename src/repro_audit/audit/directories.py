"""Audit directories: `.repro-audit/NNNN-name/`, numbered, never reused, ignored by git."""

from __future__ import annotations

import re
from pathlib import Path

from repro_audit.errors import UsageError
from repro_audit.model import Target

_NUMBER = re.compile(r"^(\d{4,})-")


def create(root: Path, target: Target) -> Path:
    """Make the next audit directory below `root`.

    Raises UsageError where `root` cannot be written. Two audits started at once get two numbers.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", _name(target)).strip("-.") or "program"
    try:
        root.mkdir(parents=True, exist_ok=True)
        ignore = root / ".gitignore"
        # On a full disk it is left empty, and ignores nothing.
        if not ignore.exists() or not ignore.stat().st_size:
            ignore.write_text("*\n", encoding="utf-8")
        while True:
            number = 1 + max((found for found, _ in numbered(root)), default=0)
            directory = root / f"{number:04d}-{name}"
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            # Another audit may have taken the number under another name in between.
            if sum(found == number for found, _ in numbered(root)) == 1:
                return directory
            directory.rmdir()
    except FileExistsError as error:
        raise UsageError(
            f"cannot write audits to {root}: it is a file. Move it out of the way."
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot write audits to {root}: {error.strerror or error}. "
            "Run from a directory that can be written."
        ) from error


def numbered(root: Path) -> list[tuple[int, Path]]:
    """(number, directory) of the audits below `root`, in order."""
    if not root.is_dir():
        return []
    found = [
        (int(match.group(1)), path)
        for path in root.iterdir()
        if (match := _NUMBER.match(path.name)) and path.is_dir()
    ]
    return sorted(found)


def _name(target: Target) -> str:
    if target.kind == "module":
        return target.name
    stem = Path(target.path).stem
    return f"{stem}-{target.name}" if target.kind == "class" else stem
