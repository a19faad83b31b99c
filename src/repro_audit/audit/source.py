"""The line of the program that an origin is told of, as the file has it."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from pathlib import Path

from repro_audit.model import Origin, Target

_LONGEST = 200


def with_source(origin: Origin, target: Target) -> Origin:
    """`origin` with the text of its line: of the forward op's, where it belongs to one.

    Call sites are relative to the working directory, the program's or that of installed packages:
    the file must still be there, unchanged since the runs.
    """
    caused_by = origin.caused_by
    site = origin.call_site if caused_by is None else caused_by.call_site
    name, _, line = (site or "").rpartition(":")
    if not line.isdigit():
        return origin
    program = (Path(target.path).resolve().parent,) if target.path else ()
    for base in (Path.cwd(), *program, Path(sysconfig.get_path("purelib"))):
        try:
            lines = (base / name).read_text("utf-8").splitlines()
        except (OSError, ValueError):
            continue
        text = lines[int(line) - 1].strip() if 0 < int(line) <= len(lines) else ""
        return replace(origin, source=text[:_LONGEST]) if text else origin
    return origin
