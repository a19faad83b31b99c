"""What a program printed: passed on while it runs, and its last words."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from repro_audit.errors import BESIDE

# A traceback longer than this is shown with its middle left out, as is its beginning in the file.
_MOST_LINES = 24
_MOST_BYTES = 1 << 16
_PLAIN_LINES = 10
_FIRST = re.compile(
    r"^(Traceback \(most recent call last\):|Fatal Python error: .*"
    r"|  \+ Exception Group Traceback \(most recent call last\):)$"
)
# What Python puts between the tracebacks of a chain of exceptions.
_CHAIN = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
# A log must not drive the terminal it is quoted on.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


@contextlib.contextmanager
def tail(path: Path, stream: TextIO) -> Iterator[Callable[[], None]]:
    """A function that copies what has been added to `path` since its last call to `stream`."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with path.open("rb") as file:

        def copy() -> None:
            if added := decoder.decode(file.read()):
                stream.write(added)
                stream.flush()

        yield copy


def last_words(path: Path) -> list[str]:
    """The last traceback of a log, with those it was caused by, or else its last lines."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _MOST_BYTES, 0))
        text = file.read().decode("utf-8", errors="replace").rstrip()
    lines = [_CONTROL.sub("", line) for line in text.split("\n")] if text else []
    starts = [
        number
        for number, line in enumerate(lines)
        if _FIRST.match(line) and not (number and lines[number - 1].startswith(BESIDE))
    ]
    if not starts:
        return lines[-_PLAIN_LINES:]
    start = starts.pop()
    while starts and lines[max(start - 2, 0)].strip() in _CHAIN:
        start = starts.pop()
    return _shortened(lines[start:])


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    head = 3
    rest = _MOST_LINES - head - 1
    left_out = len(lines) - head - rest
    return [*lines[:head], f"  ... {left_out} lines ...", *lines[-rest:]]
