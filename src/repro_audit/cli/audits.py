"""Finished audits on disk: by number, by place, or the latest."""

from __future__ import annotations

import re
from pathlib import Path

from repro_audit.errors import UsageError

ROOT = Path(".repro-audit")
REPORT = "report.json"
FIRST_TRACE = "run-1.sqlite"

_NUMBERED = re.compile(r"(\d{4,})-.")


def find_report(word: str | None) -> Path:
    """The report that `word` (a number, a directory or a file; None: the latest) stands for."""
    if word is None:
        return _latest()
    place = find_audit(word) or Path(word)
    if place.is_dir():
        if not (place / REPORT).is_file():
            raise UsageError(
                f"{place} has no {REPORT}: no audit, or one that did not finish; run it again"
            )
        return place / REPORT
    if not place.exists():
        raise UsageError(f"no audit {word}; {_what_is_there()}")
    return place


def find_trace(word: str) -> Path:
    """The trace that `word` stands for: a trace file, or an audit's first run."""
    place = find_audit(word) or Path(word)
    if place.is_dir():
        if not (place / FIRST_TRACE).is_file():
            raise UsageError(
                f"{place} has no {FIRST_TRACE}; name a trace, an audit or a checkpoint"
            )
        return place / FIRST_TRACE
    if not place.exists():
        raise UsageError(
            f"no trace, audit or checkpoint {word}; `repro-audit record TARGET -o FILE.audit` "
            "makes a trace"
        )
    return place


def find_audit(word: str) -> Path | None:
    """The directory of the audit numbered `word`; None where `word` is no number."""
    if not re.fullmatch(r"\d+", word) or Path(word).exists():
        return None
    numbered = [place for number, place in _audits() if number == int(word)]
    if not numbered:
        raise UsageError(f"no audit {word}; {_what_is_there()}")
    return numbered[0]


def _latest() -> Path:
    finished = [place / REPORT for _, place in _audits() if (place / REPORT).is_file()]
    if not finished:
        raise UsageError(
            f"no finished audit in {ROOT}; `repro-audit run train.py` makes one, and "
            "`repro-audit report PATH` shows one elsewhere"
        )
    return finished[-1]


def _audits() -> list[tuple[int, Path]]:
    if not ROOT.is_dir():
        return []
    matches = ((_NUMBERED.match(place.name), place) for place in ROOT.iterdir())
    return sorted((int(match.group(1)), place) for match, place in matches if match)


def _what_is_there() -> str:
    names = [place.name for _, place in _audits()]
    if not names:
        return f"there are none in {ROOT}; `repro-audit run train.py` makes one"
    shown = ", ".join(names[-5:])
    return f"{ROOT} has {shown}" if len(names) <= 5 else f"the latest in {ROOT} are {shown}"
