"""An audit told in parts, for formats that are pages: the words are those of the text report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from repro_audit.model import Audit, Matrix
from repro_audit.report import phrases
from repro_audit.report.page import Statement, Statements
from repro_audit.report.phrases import printable
from repro_audit.report.terminal import next_command, tell

_LABELS = {
    "": "Findings",
    "likely": "Likely cause",
    "proven": "Proven cause",
    "cause": "Cause",
    "try": "What to try",
    "alone": "The op by itself",
    "tried": "Experiments",
    "cure": "What cures it",
    "script": "Reproducer",
    "start": "The start",
    "drift": "Largest difference",
    "beyond": "Beyond the tolerance",
    "grows": "Grows most",
    "depth": "Over depth",
    "steps": "Over steps",
    "leans": "Leans",
    "values": "Measured by",
    "own": "Own error",
    "nearer": "Nearer to float64",
    "runs": "What it took",
    "unseen": "Not observed",
    "self-check": "Self-check",
}
_WHY = ("likely", "proven", "cause", "try", "alone", "tried", "cure", "script")
_APART = ("start", "drift", "beyond", "grows", "depth", "steps", "leans", "values", "own", "nearer")
# Commands: they are told elsewhere.
_COMMANDS = ("why", "report")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the audit found, for somebody who never saw another: `tone` is good, bad or unsure."""

    label: str
    tone: str
    mark: str
    title: str
    intro: str


@dataclass(frozen=True, slots=True)
class Place:
    """The origin in words: the way to it from the outside in, and what differs there."""

    path: tuple[str, ...]
    where: str
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Told:
    """What stands behind one label; `code` where it is to be typed."""

    label: str
    texts: tuple[str, ...]
    code: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Statements on one question."""

    anchor: str
    title: str
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """All that the text report says: `subject` is what stands beside the verdict."""

    verdict: Verdict
    subject: str
    place: Place | None
    parts: tuple[Part, ...]


def story(audit: Audit) -> Story:
    """Tell `audit` in parts: the verdict, the place, why, how far apart, what else was found."""
    sheet = Statements()
    tell(audit, sheet, tables=False)
    headline, *rest = sheet.told
    place = None
    told_of = audit.matrix is None and audit.verdict in {"divergent", "within-tolerance"}
    if audit.origin is not None and told_of:
        path = phrases.site(
            audit.origin.key, rank=audit.origin.rank, recompute=audit.origin.recompute
        )
        # What differs there is told first.
        at = next(i for i, one in enumerate(rest) if not one.label and one.text != audit.reason)
        source = printable(audit.origin.source or "")
        place = Place(path, phrases.whereabouts(audit.origin), source, rest.pop(at).text)
    axes = () if audit.matrix is None else tuple(axis.name for axis in audit.matrix.axes)
    parts = (
        Part("axes", "What each condition changes", _told(rest, axes, axes)),
        Part("why", "Why", _told(rest, _WHY)),
        Part("apart", "How far apart", _told(rest, _APART)),
        Part("found", "What else was found", _told(rest, None, axes)),
    )
    return Story(
        verdict_of(audit), headline.text, place, tuple(part for part in parts if part.told)
    )


def verdict_of(audit: Audit) -> Verdict:
    """The verdict in a sentence or two that need no other knowledge."""
    if audit.matrix is not None:
        return _of_matrix(audit, audit.matrix)
    recorded = audit.command in {"compare", "verify"}
    both = "recordings" if audit.command == "compare" else "runs"
    many = {2: "two", 3: "three"}.get(audit.observed.runs, phrases.number(audit.observed.runs))
    began = f"The program was run {'twice' if many == 'two' else f'{many} times'}"
    began += ", with the same seeds. " if audit.mode != "as-is" else ". "
    if recorded:
        began = f"{many.capitalize()} {both} of a program were compared. "
    if audit.verdict == "identical":
        said = f"{began}Every tensor that was compared came out the same, bit by bit."
        if audit.confirmation is not None and not audit.confirmation.holds:
            said += " That is so only because the audit fixed what is usually left open."
        return Verdict("Identical", "good", "✓", f"The {both} are identical", said)
    if audit.verdict == "within-tolerance":
        said = (
            f"{began}They differ in some bits, and all that was measured is within the tolerance."
        )
        return Verdict("Within tolerance", "good", "✓", f"The {both} agree within tolerance", said)
    if audit.verdict == "divergent":
        said = f"{began}What was to come out the same did not."
        if audit.origin is not None:
            said += " This is where they part first; what differs later may follow from it."
        return Verdict("Divergent", "bad", "✗", f"The {both} differ", said)
    if audit.verdict == "different-program":
        said = f"{began}What they did has too little in common to be compared."
        return Verdict("Different program", "unsure", "?", "These are not of one program", said)
    said = "There was too little to go by for an answer. That is not the same as no difference."
    return Verdict("Inconclusive", "unsure", "?", "There is no answer", said)


def _of_matrix(audit: Audit, matrix: Matrix) -> Verdict:
    runs = phrases.count(audit.observed.runs, "run")
    conditions = phrases.count(len(matrix.cells), "set") + " of conditions"
    began = f"The program was run under {conditions}, {runs} in all. "
    if audit.verdict == "identical":
        said = f"{began}Every tensor that was compared came out the same, bit by bit."
        return Verdict("Identical", "good", "✓", "The conditions change nothing", said)
    if audit.verdict == "divergent":
        changing = [printable(answer.axis) for answer in matrix.answers if answer.changes]
        title = "The results vary from run to run"
        if changing:
            verb = "changes" if len(changing) == 1 else "change"
            title = f"{phrases.listing(changing)} {verb} the bits"
        said = f"{began}Not all of them give the same result."
        return Verdict("Divergent", "bad", "✗", title, said)
    return Verdict("Inconclusive", "unsure", "?", "There is no whole answer", began.strip())


def commands(audit: Audit) -> Iterator[tuple[str, str]]:
    """What to type, and what for: the audit again, the next question, the reproducer."""
    first = audit.runs[0] if audit.runs else None
    asked = first.manifest.get("target", {}) if first is not None else {}
    if audit.command == "run" and first is not None:
        words = ["repro-audit", *_words(audit.target)]
        if audit.mode in {"deterministic", "as-is"}:
            words.append(f"--{audit.mode}")
        arguments = [str(word) for word in asked.get("arguments") or ()]
        yield "The audit again:", _shell([*words, *(("--", *arguments) if arguments else ())])
        if audit.verdict == "divergent" and audit.explanation is None:
            explained = _shell([*words, "--explain", *(("--", *arguments) if arguments else ())])
            yield "Why: one condition is changed at a time, and a cure is tried:", explained
    elif audit.matrix is not None:
        varied = (f"--vary={axis.name}={','.join(axis.values)}" for axis in audit.matrix.axes)
        grid = ["--grid"] * audit.matrix.grid
        words = ["repro-audit", "matrix", *_words(audit.target), *varied, *grid]
        yield "The matrix again:", _shell(words)
    elif audit.command in {"compare", "verify"} and first is not None:
        traces = [run.trace for run in audit.runs]
        named = traces if audit.command == "compare" else traces[:1]
        yield "The comparison again:", _shell(["repro-audit", audit.command, *named])
    if audit.reproducer is not None and audit.reproducer.path is not None:
        yield "The divergence with torch alone:", _shell(["python", audit.reproducer.path])
    again = next_command(audit)
    if again is not None:
        yield "All of it, for programs to read:", again


def _words(target: str) -> list[str]:
    return target.split(" ", 1) if target.startswith("-m ") else [target]


def _shell(words: list[str]) -> str:
    return printable(shlex.join(words))


def _told(
    statements: list[Statement], labels: tuple[str, ...] | None, axes: tuple[str, ...] = ()
) -> tuple[Told, ...]:
    """The statements behind these labels, or behind none of those known; one for each label."""
    elsewhere = {*_WHY, *_APART, *_COMMANDS, *axes}
    found: dict[str, list[str]] = {}
    for one in statements:
        if one.label in labels if labels is not None else one.label not in elsewhere:
            found.setdefault(one.label, []).append(one.text)
    return tuple(
        Told(_long(label, axes), tuple(texts), label == "try") for label, texts in found.items()
    )


def _long(label: str, axes: tuple[str, ...]) -> str:
    return label if label in axes else _LABELS.get(label, f"Note {label}")
