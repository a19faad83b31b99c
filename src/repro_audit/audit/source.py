"""The line of the program that an origin is told of, as the file has it."""

from __future__ import annotations

import tokenize
from dataclasses import replace

from repro_audit.control.callsites import file_of
from repro_audit.model import Origin, Target

_LONGEST = 200


def with_source(origin: Origin, target: Target) -> Origin:
    """`origin` with the text of its line: of the forward op's, where it has none of its own.

    The file must still be there, unchanged since the runs.
    """
    place = origin.own_place
    found = file_of(place.call_site or "", target.path, installed=place.called_from is not None)
    if found is None:
        return origin
    path, number = found
    try:
        # As Python reads it: by its coding line, and with lines that only line feeds end.
        with tokenize.open(path) as file:
            lines = list(file)
    except (OSError, SyntaxError, ValueError):
        return origin
    text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    return replace(origin, source=text[:_LONGEST]) if text else origin
