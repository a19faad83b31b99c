"""Annotations of GitHub's workflows: the origin at its line, and the warnings."""

from __future__ import annotations

import os
from pathlib import Path

from repro_audit.control.callsites import file_of
from repro_audit.model import Audit, Placed
from repro_audit.report.phrases import printable
from repro_audit.report.story import story

_LEVELS = {"divergent": "error", "different-program": "error", "inconclusive": "warning"}


def to_github(audit: Audit) -> str:
    """`audit` as workflow commands, a line each, for a step's standard output."""
    told = story(audit)
    said = [told.verdict.intro] if told.place is None else [told.place.what]
    said += [
        f"{one.label}: {text}" for part in told.parts[:1] for one in part.told for text in one.texts
    ]
    subject = " · ".join(told.place.path) if told.place is not None else told.subject
    origin = audit.origin
    place: Placed | None = origin
    if origin is not None and origin.own_place.call_site is not None:
        place = origin.own_place
    # Of a package's line the checkout has only the one that called it.
    site = None if place is None else place.called_from or place.call_site
    level = _LEVELS.get(audit.verdict, "notice")
    if audit.self_check is not None and audit.self_check.differing:
        level = "error"
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
    """A call site as GitHub wants it: from the top of the checkout."""
    program = "" if target.startswith("-m ") else target.partition(".py:")[0]
    found = file_of(site or "", program)
    if found is None:
        return site
    path, line = found
    top = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    resolved = path.resolve()
    return f"{resolved.relative_to(top)}:{line}" if resolved.is_relative_to(top) else site


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
