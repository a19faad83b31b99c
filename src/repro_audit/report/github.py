"""Annotations of GitHub's workflows: the origin at its line, and the warnings."""

from __future__ import annotations

from pathlib import Path, PurePath

from repro_audit.model import Audit
from repro_audit.report.phrases import printable
from repro_audit.report.story import story

_LEVELS = {"divergent": "error", "different-program": "error", "inconclusive": "warning"}


def to_github(audit: Audit) -> str:
    """`audit` as workflow commands, a line each, for a step's standard output."""
    told = story(audit)
    said = [told.verdict.intro] if told.place is None else [told.place.what]
    said += [text for part in told.parts[:1] for one in part.told for text in one.texts]
    subject = " · ".join(told.place.path) if told.place is not None else told.subject
    origin = audit.origin
    caused_by = None if origin is None else origin.caused_by
    site = None if origin is None else origin.call_site
    if caused_by is not None and caused_by.call_site is not None:
        site = caused_by.call_site
    level = _LEVELS.get(audit.verdict, "notice")
    title = f"{told.verdict.title}: {subject}"
    lines = [_command(level, title, "\n".join(said), _placed(site, audit.target))]
    lines += [
        _command(
            "warning",
            printable(warning.code),
            printable(warning.message),
            _placed(warning.call_site, audit.target),
        )
        for warning in audit.warnings
    ]
    return "".join(f"{line}\n" for line in lines)


def _placed(site: str | None, target: str) -> str | None:
    """A call site as seen from here: it may be relative to the program's directory."""
    beside = PurePath(target).parent / (site or "")
    if site and not Path(site.rpartition(":")[0]).exists():
        return str(beside) if Path(str(beside).rpartition(":")[0]).exists() else site
    return site


def _command(level: str, title: str, message: str, site: str | None) -> str:
    properties = {}
    name, _, line = (site or "").rpartition(":")
    if name and line.isdigit():
        properties = {"file": printable(name), "line": line}
    properties["title"] = title
    said = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {said}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
