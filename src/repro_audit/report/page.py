"""Paragraphs with labels: wrapped on a console, or kept as they are for other formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.text import Text

WIDEST = 100
_NARROWEST = 16
_LONGEST_WORD = 64
_LABEL = 8

# A space no line may break at: `phrases.printable` lets no private-use character through, so this
# one stands in no name, and unlike U+00A0 it is no white space to the wrapper.
_GLUE = "\ue000"


def glued(text: str) -> str:
    """`text` as one word to the wrapper, unless it is too long to stand on a line of its own."""
    return text.replace(" ", _GLUE) if len(text) <= _LONGEST_WORD else text


class Sheet(Protocol):
    """What an audit is told on; lines have `width` columns, at most."""

    @property
    def width(self) -> int:
        """Columns."""

    def path(self, parts: tuple[str, ...]) -> str:
        """`step 0 · forward · fc`."""

    def paragraph(self, text: str, *, indent: int, lead: str = "", style: str = "") -> None:
        """`lead` in `style`, then `text`."""

    def labelled(self, label: str, text: str, *, indent: int = 2, style: str = "dim") -> None:
        """A paragraph behind a label of up to seven letters; without one it goes on."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A paragraph of a report, and the label that it stands behind, if any."""

    label: str
    text: str


class Statements:
    """A sheet that keeps what is told, for other formats than text."""

    width = WIDEST

    def __init__(self) -> None:
        self.told: list[Statement] = []

    def path(self, parts: tuple[str, ...]) -> str:
        """`step 0 · forward · fc`."""
        return " · ".join(parts)

    def paragraph(self, text: str, *, indent: int, lead: str = "", style: str = "") -> None:
        """Keep a paragraph; behind a blank lead it goes on with what was told last."""
        label = self.told[-1].label if lead and not lead.strip() else lead.strip()
        self.told.append(Statement(label, text.replace(_GLUE, " ")))

    def labelled(self, label: str, text: str, *, indent: int = 2, style: str = "dim") -> None:
        """Keep a paragraph; without a label it belongs to what was labelled last."""
        if not label and self.told:
            label = self.told[-1].label
        self.told.append(Statement(label, text.replace(_GLUE, " ")))


class Page:
    """Writes on `console`, no line wider than it, nor than 100 columns."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, WIDEST)
        self._dot = "·" if console.encoding.startswith("utf") else "-"

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self._width

    def path(self, parts: tuple[str, ...]) -> str:
        """`step 0 · forward · fc`; a line may break after a dot."""
        return f"{_GLUE}{self._dot} ".join(glued(part) for part in parts)

    def paragraph(self, text: str, *, indent: int, lead: str = "", style: str = "") -> None:
        """`lead` in `style`, then `text`, whose lines all begin right of the lead."""
        width = max(self._width - indent - len(lead), _NARROWEST)
        # What is longer than a line has to break somewhere: between its words.
        words = (w if len(w) <= width else w.replace(_GLUE, " ") for w in text.split(" "))
        lines = Text(" ".join(words)).wrap(self._console, width, overflow="fold")
        for i, line in enumerate(lines or [Text()]):
            line.plain = line.plain.replace(_GLUE, " ").rstrip()
            first = Text(lead, style=style) if i == 0 else Text(" " * len(lead))
            # The line is wrapped already; soft_wrap keeps rich from cutting it a second time.
            self._console.print(Text(" " * indent) + first + line, soft_wrap=True)

    def labelled(self, label: str, text: str, *, indent: int = 2, style: str = "dim") -> None:
        """A paragraph behind a label of up to seven letters."""
        self.paragraph(text, indent=indent, lead=label.ljust(_LABEL - 1) + " ", style=style)
