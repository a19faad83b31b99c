"""Where the file of a call site is: sites are written so that two checkouts compare."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def file_of(site: str, program: str, *, installed: bool = False) -> tuple[Path, int] | None:
    """The file and line of `train.py:12`, as the program at the path `program` writes it.

    Sites are relative to the working directory; what is not below it is relative to the program's
    directory, or, and alone if it is `installed`, to that of installed packages. None where there
    is no such file, or one in each.
    """
    name, _, line = site.rpartition(":")
    if not name or not line.isdigit():
        return None
    here = beside = Path.cwd()
    if program and "\0" not in program:
        beside = Path(program).resolve().parent
    bases = [here] if beside.is_relative_to(here) else [here, beside]
    packages = [Path(sysconfig.get_path("purelib"))]
    for among in (packages,) if installed else (bases, packages):
        found = [base / name for base in among if _is_file(base / name)]
        if len(found) == 1:
            return found[0], int(line)
        if found:
            return None
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # A name that is too long, or none.
        return False
