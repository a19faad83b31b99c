"""The part of the text report on a resumed run: where it goes on, and with which state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from repro_audit.model import Restored, Resumption
from repro_audit.report import phrases
from repro_audit.report.page import Sheet, glued
from repro_audit.report.phrases import number, printable


def render_resumption(resumption: Resumption, page: Sheet) -> None:
    """Where the resumed run goes on, from what, and which state is the straight run's."""
    page.labelled("resumed", _from(resumption))
    said = [glued(printable(one)) for one in _states(resumption.state)]
    if said:
        page.labelled("state", ", ".join(said))


def _from(resumption: Resumption) -> str:
    straight = resumption.straight
    said = f"at step {number(resumption.step)} of {number(straight)}"
    if resumption.read:
        said += f" from {printable(_files(resumption.read))}"
    else:
        said += ", from a file that was not seen to be read"
    said += f"; the first part had made {phrases.count(resumption.ended, 'step')}"
    end = resumption.step + resumption.resumed
    if resumption.more:
        alone = phrases.count(resumption.more, "event")
        said += f"; {alone} it has alone, as what is made once is made anew"
    if end > straight or (end < straight and not resumption.limited):
        said += f"; it goes on to step {number(end)}, the straight run to step {number(straight)}"
    return said


def _files(paths: tuple[str, ...]) -> str:
    """A file by its name, several by how many there are and the directory that they are in."""
    if len(paths) == 1:
        return paths[0]
    places = {str(PurePath(path).parent) for path in paths}
    within = places.pop() if len(places) == 1 else ""
    said = f"{number(len(paths))} files"
    return f"{said} of {within}" if within not in {"", "."} else f"{said}, {paths[0]} among them"


def _states(state: tuple[Restored, ...]) -> Iterator[str]:
    for item in state:
        if item.used and item.compared:
            yield f"{_name(item)} {_compared(item)}"
    unused = [item for item in state if not item.used]
    for item in unused:
        if item.differing:
            yield f"{_name(item)} {_compared(item)}, not drawn from in these steps"
    same = [item.name for item in unused if not item.differing]
    if same:
        yield f"{phrases.listing(same)} not drawn from"


def _name(item: Restored) -> str:
    if item.what == "generator":
        return f"{item.name} generator"
    if item.what in {"optimizer", "options"}:
        return item.name + (" options" if item.what == "options" else "")
    return item.what


def _compared(item: Restored) -> str:
    if not item.differing:
        return "same"
    if item.compared == 1:
        return "differs"
    return f"{number(item.differing)} of {number(item.compared)} differ"
