"""An audit told in parts, for formats that are pages: the words are those of the text report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from repro_audit.model import Audit, Matrix, Screening
from repro_audit.report import phrases
from repro_audit.report.page import Statement, Statements
from repro_audit.report.phrases import printable
from repro_audit.report.screened import LABELS
from repro_audit.report.terminal import FIRST_AS_IS, next_command, tell

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
    "resumed": "Resumed",
    "state": "Restored state",
    "nearer": "Nearer",
    "agree": "Agree",
    "apart": "Apart, and none known to be wrong",
    "differs": "Differs",
    "varies": "Does not repeat itself",
    "single": "Nothing to compare with",
    "failed": "Failed",
    "runs": "What it took",
    "unseen": "Not observed",
    "self-check": "Self-check",
}
_WHY = ("likely", "proven", "cause", "try", "alone", "tried", "cure", "script")
_APART = ("start", "drift", "beyond", "grows", "depth", "steps", "leans", "values", "own", "nearer")
_DEVICES = tuple(LABELS.values())
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
        reason = printable(audit.reason or "")
        rest = [one for one in rest if one.label != "first"]
        at = next(i for i, one in enumerate(rest) if not one.label and one.text != reason)
        source = printable(audit.origin.source or "")
        place = Place(path, phrases.whereabouts(audit.origin), source, rest.pop(at).text)
    confirmed: tuple[Told, ...] = ()
    if audit.confirmation is not None and audit.confirmation.origin is not None:
        # The place stands behind what it is the place of.
        at = next(i for i, one in enumerate(rest) if one.text.endswith(FIRST_AS_IS))
        said = f"{rest[at].text}: {rest[at + 1].text}"
        del rest[at : at + 2]
        confirmed = (Told("As-is", (said,), False), *_told(rest, _WHY))
        rest = [one for one in rest if one.label not in _WHY]
    devices = () if audit.screening is None else _DEVICES
    axes = () if audit.matrix is None else tuple(axis.name for axis in audit.matrix.axes)
    parts = (
        Part("axes", "What each condition changes", _told(rest, axes, axes)),
        Part("devices", "The devices", _told(rest, devices)),
        Part("confirmed", "Without the audit's settings", confirmed),
        Part("why", "Why", _told(rest, _WHY)),
        Part("apart", "How far apart", _told(rest, _APART)),
        Part("found", "What else was found", _told(rest, None, (*axes, *devices))),
    )
    return Story(
        verdict_of(audit), headline.text, place, tuple(part for part in parts if part.told)
    )


def verdict_of(audit: Audit) -> Verdict:
    """The verdict in a sentence or two that need no other knowledge."""
    if audit.self_check is not None and audit.self_check.differing:
        said = (
            "The observed program did not end in the state of one that was not observed. Nothing "
            "else that is said here counts: please report it."
        )
        return Verdict("Disturbed", "bad", "!", "The audit disturbed the program", said)
    if audit.matrix is not None:
        return _of_matrix(audit, audit.matrix)
    if audit.command == "resume":
        return _of_resumed(audit)
    if audit.screening is not None:
        return _of_screening(audit, audit.screening)
    both = "recordings" if audit.command == "compare" else "runs"
    began = _began(audit)
    if audit.verdict == "identical":
        said = f"{began}Every tensor that was compared came out the same, bit by bit."
        if audit.confirmation is None or audit.confirmation.holds:
            return Verdict("Identical", "good", "✓", f"The {both} are identical", said)
        said += " One more run, without the audit's settings, differed. "
        if phrases.held_still(audit):
            said += "So they are the same only because the audit fixes what is usually left open."
            title = f"The {both} are identical only under the audit's settings"
            return Verdict("Identical", "unsure", "✓", title, said)
        said += "Changing these settings one by one did not bring that back: it may be chance."
        title = f"The {both} are identical, and a run without the audit's settings was not"
        return Verdict("Identical", "unsure", "✓", title, said)
    if audit.verdict == "within-tolerance":
        said = (
            f"{began}They differ in some bits, and all that was measured is within the tolerance. "
            "The first bit that differs is here."
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


def _of_resumed(audit: Audit) -> Verdict:
    began = (
        "The program was run straight through; then its first part alone, and again where that "
        "had left off. "
    )
    if audit.verdict == "identical":
        said = f"{began}From there on, every tensor came out as in the straight run, bit by bit."
        return Verdict("Identical", "good", "✓", "The resumed run goes on as if never ended", said)
    if audit.verdict == "divergent":
        said = (
            f"{began}What it did from there on is not what the straight run did. This is where "
            "they part first; what differs later may follow from it."
        )
        return Verdict("Divergent", "bad", "✗", "The resumed run differs", said)
    said = f"{began}What came of it does not tell whether it resumes as it should."
    return Verdict("Inconclusive", "unsure", "?", "There is no answer", said)


def _of_screening(audit: Audit, screening: Screening) -> Verdict:
    devices = phrases.count(len(screening.devices), "device")
    runs = phrases.count(audit.observed.runs, "run")
    began = f"One program was run on {devices}, {runs} in all. "
    if audit.verdict == "identical":
        said = f"{began}Every tensor came out the same on all that are of one kind, bit by bit."
        return Verdict("Identical", "good", "✓", "The devices agree", said)
    if audit.verdict == "divergent":
        said = (
            f"{began}Devices of one kind are to compute the same bits, and did not. This is where "
            "the first that is unlike others parts from them."
        )
        title = "A device is unlike the others of its kind"
        if screening.alone and not screening.suspects:
            title = "A device does not repeat itself"
        elif not screening.suspects:
            title = "Devices of one kind differ"
        elif len(screening.suspects) > 1:
            title = "Devices are unlike others of their kind"
        return Verdict("Divergent", "bad", "✗", title, said)
    said = f"{began}What came of it does not tell whether a device is wrong."
    return Verdict("Inconclusive", "unsure", "?", "There is no answer", said)


def _began(audit: Audit) -> str:
    """How the audit came by what it compares."""
    runs = audit.observed.runs
    many = {2: "two", 3: "three"}.get(runs, phrases.number(runs))
    if audit.command == "verify":
        return "A recorded program was run again here, and compared with the recording. "
    if audit.command == "compare":
        began = f"{many.capitalize()} recordings of a program were compared. "
        if runs > 2 and audit.overview is not None:
            one, other = (printable(run) for run in audit.overview.runs)
            began += f"What is said of two of them is said of {one} and {other}. "
        return began
    began = f"The program was run {'twice' if runs == 2 else f'{many} times'}"
    return began + (", with the same seeds. " if audit.mode != "as-is" else ". ")


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
    if audit.words:
        yield "The same again:", _shell(["repro-audit", *audit.words])
    if audit.words and phrases.may_be_explained(audit):
        command, *rest = audit.words
        yield (
            "Why: one condition is changed at a time, and a cure is tried:",
            _shell(["repro-audit", command, "--explain", *rest]),
        )
    if audit.reproducer is not None and audit.reproducer.path is not None:
        yield "The divergence with torch alone:", _shell(["python", audit.reproducer.path])
    again = next_command(audit)
    if again is not None:
        yield "All of it, for programs to read:", again


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
        Told(_long(label, axes), tuple(texts), label == "try" and all(map(_is_code, texts)))
        for label, texts in found.items()
    )


def _is_code(text: str) -> bool:
    """True for a call, an assignment or an option, not for a sentence."""
    return " " not in text.strip() or text.endswith(")") or " = " in text


def _long(label: str, axes: tuple[str, ...]) -> str:
    return label if label in axes else _LABELS.get(label, f"Note {label}")
