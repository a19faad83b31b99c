"""The report a person reads: plain lines that fit the terminal, the verdict first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from io import StringIO
from pathlib import PurePath
from typing import IO

from rich.console import Console

from repro_audit.model import Audit, Cause, Origin, Reproducer, SelfCheck
from repro_audit.report import phrases
from repro_audit.report.drifted import render_drift
from repro_audit.report.matrix_text import render_matrix, subject_of
from repro_audit.report.page import Page, Sheet, glued
from repro_audit.report.phrases import printable
from repro_audit.report.resumed import render_resumption
from repro_audit.report.screened import devices_of, render_screening

_ELSEWHERE_SHOWN = 3
_MANIFESTS_SHOWN = 8
_ITEMS_SHOWN = 4

FIRST_AS_IS = "as-is, the first difference is"
HEADLINES = {
    "identical": ("IDENTICAL", "bold green"),
    "within-tolerance": ("WITHIN TOLERANCE", "bold green"),
    "divergent": ("DIVERGENT", "bold red"),
    "different-program": ("DIFFERENT PROGRAM", "bold yellow"),
    "inconclusive": ("INCONCLUSIVE", "bold yellow"),
}


def console_for(stream: IO[str]) -> Console:
    """A console on `stream`: coloured only on a terminal, and not where NO_COLOR is set."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def render(audit: Audit, console: Console) -> None:
    """Print `audit` on `console`; no line is wider than the console, nor than 100 columns."""
    tell(audit, Page(console))


def tell(audit: Audit, page: Sheet, *, tables: bool = True) -> None:
    """Say all of `audit` on `page`, the verdict first; with what pages have `tables` for."""
    _headline(audit, page)
    if audit.matrix is not None:
        render_matrix(audit.matrix, page, table=tables)
    else:
        _findings(audit, page, tables=tables)
    if audit.unseen:
        said = ", ".join(glued(phrases.unseen(unseen)) for unseen in audit.unseen)
        page.labelled("unseen", said)
    for warning in audit.warnings:
        at = f" (at {printable(warning.call_site)})" if warning.call_site else ""
        page.labelled(printable(warning.code), printable(warning.message) + at, style="yellow")
    if phrases.may_be_explained(audit):
        page.labelled("why", "--explain changes one condition at a time, and tries a cure")
    command = next_command(audit)
    if command:
        page.labelled("report", command)


def _findings(audit: Audit, page: Sheet, *, tables: bool) -> None:
    """What runs under the same conditions, or two recordings, say."""
    tolerated = audit.verdict == "within-tolerance"
    if audit.origin is not None:
        if audit.screening is not None or tolerated:
            page.labelled("first", _located(audit.origin, page))
        _difference(audit.origin, audit, page, indent=2)
    _cause(audit.cause, page, indent=2)
    if audit.verdict == "divergent" or (tolerated and audit.origin is not None):
        _extent(audit, page)
    if audit.verdict in {"identical", "within-tolerance"}:
        _confirmation(audit, page)
        _honest_close(audit, page)
    render_drift(audit, page)
    if audit.resumption is not None:
        render_resumption(audit.resumption, page)
    if audit.screening is not None:
        render_screening(audit, audit.screening, page)
    _explanation(audit, page)
    _reproducer(audit.reproducer, page)
    _self_check(audit.self_check, page)
    _passes(audit, page)
    if tables:
        _manifests(audit, page)


def render_text(audit: Audit, width: int = 80) -> str:
    """`audit` as plain text of at most `width` columns, ending in a newline."""
    return plain_text(lambda console: render(audit, console), width)


def plain_text(show: Callable[[Console], None], width: int = 80) -> str:
    """What `show` prints on a console of `width` columns without colours."""
    stream = StringIO()
    show(
        Console(
            file=stream, width=width, color_system=None, highlight=False, markup=False, emoji=False
        )
    )
    return stream.getvalue()


def next_command(audit: Audit) -> str | None:
    """The command that says more about `audit`; None where nothing of it was kept."""
    if audit.directory is not None:
        place = PurePath(audit.directory)
        numbered = re.match(r"(\d{4,})-", place.name)
        usual = place.parent.name == ".repro-audit"
        name = numbered.group(1) if numbered and usual else shlex.quote(str(place))
        return f"repro-audit report {printable(name)} --format json"
    if audit.command == "compare":
        words = audit.words or ("compare", *(run.trace for run in audit.runs))
        return f"repro-audit {printable(shlex.join(words))} --format json"
    return None


def _explanation(audit: Audit, page: Sheet) -> None:
    """What was tried, and what cures it."""
    explanation = audit.explanation
    if explanation is None:
        return
    replay = explanation.replay
    if replay is not None and replay.problem is not None:
        said = f"the op could not be called by itself: {printable(replay.problem)}"
        page.labelled("alone", said)
    tried = phrases.experiments(explanation.experiments, changed=audit.verdict != "divergent")
    for i, said in enumerate(tried):
        page.labelled("" if i else "tried", said)
    cure = explanation.cure
    if cure is None:
        return
    for remedy in cure.remedies:
        page.labelled("cure" if remedy == cure.remedies[0] else "", printable(remedy))
    said = phrases.cured(cure)
    if cure.remaining is not None:
        said += f"; what remains is first at {_located(cure.remaining, page)}"
    page.labelled("", said)


def _reproducer(reproducer: Reproducer | None, page: Sheet) -> None:
    if reproducer is None:
        return
    reason = printable(reproducer.reason or "")
    if reproducer.path is None:
        page.labelled("script", f"none was written: {reason}")
        return
    said = {True: "shows it", False: "did not show it when it was tried", None: reason}
    page.labelled("script", f"{printable(reproducer.path)}: {said[reproducer.shows]}")


def _headline(audit: Audit, page: Sheet) -> None:
    label, style = HEADLINES[audit.verdict]
    reason = printable(audit.reason or "")
    if audit.matrix is not None:
        subject = subject_of(audit, audit.matrix)
    elif audit.screening is not None:
        subject = devices_of(audit, audit.screening)
    elif audit.verdict in {"identical", "within-tolerance"}:
        subject = _agreement(audit)
    elif audit.origin is not None:
        subject = _located(audit.origin, page)
    else:
        subject, reason = reason or "no single event came first", ""
    page.paragraph(subject, indent=0, lead=f"{label}  ", style=style)
    if reason:
        page.paragraph(reason, indent=2)


def _agreement(audit: Audit) -> str:
    if audit.resumption is not None:
        compared = phrases.count(audit.resumption.compared, "step")
        events = phrases.count(audit.events.compared, "event")
        return f"resumed as if never interrupted, {compared}, {events}"
    runs = audit.observed.runs
    what = phrases.count(runs, "trace" if audit.command == "compare" else "run")
    said = [what if audit.command == "compare" else f"{runs} of {what}"]
    said.append(phrases.count(audit.events.compared, "event") + _unaligned(audit))
    steps = audit.runs[0].manifest.get("steps") if audit.runs else None
    if isinstance(steps, int):
        said.append(phrases.count(steps, "step"))
    return ", ".join(said)


def _located(origin: Origin, page: Sheet) -> str:
    parts = phrases.site(origin.key, rank=origin.rank, recompute=origin.recompute)
    where = phrases.whereabouts(origin)
    return page.path(parts) + (f"  {glued(f'({where})')}" if where else "")


def _difference(origin: Origin, audit: Audit, page: Sheet, *, indent: int) -> None:
    if origin.key.op.startswith("draw:"):
        page.paragraph("one run draws a number here, the other does not", indent=indent)
        return
    if origin.kind == "structural":
        does = phrases.op_name(origin.key.op)
        instead = phrases.op_name(origin.other_op) if origin.other_op else "nothing"
        # An origin does not say whose event it is, so no run is named.
        said = f"structure differs: one run does {does} where another does {instead}"
        page.paragraph(said, indent=indent)
        return
    what = phrases.what_differs(origin)
    figures = origin.ulp
    if figures is None:
        tensor = phrases.spec(origin)
        first = None if audit.drift is None else audit.drift.first
        if first is not None and first.key == origin.key:
            what += f" by {glued(phrases.deviation(first.deviation, first.spec))}"
        page.paragraph(f"{what}: {glued(tensor)}" if tensor else what, indent=indent)
        return
    between = ""
    if origin.ulp_runs and not set(origin.ulp_runs) <= {run.name for run in audit.runs}:
        between = f" (ULP from {phrases.listing(printable(run) for run in origin.ulp_runs)})"
    if figures.identical:
        tensor = phrases.spec(origin)
        said = f"{what}, but not in the runs that were measured{between}: {tensor}"
    else:
        said = f"{what}: {', '.join(glued(phrase) for phrase in phrases.ulp(figures))}"
        said += f" {glued(between[1:])}" if between else ""
    page.paragraph(said, indent=indent)


def _cause(cause: Cause | None, page: Sheet, *, indent: int) -> None:
    if cause is None:
        return
    first, *others = cause.evidence or ("nothing that was recorded explains it",)
    source = f"   {glued(f'[{printable(cause.source)}]')}" if cause.source else ""
    label = "cause" if cause.cls == "unknown" else cause.confidence
    said = f"{cause.cls}: {printable(first)}{source}"
    page.labelled(label, said, indent=indent, style="bold")
    for evidence in others:
        page.labelled("", printable(evidence), indent=indent)
    for i, remedy in enumerate(cause.remedies):
        page.labelled("" if i else "try", printable(remedy), indent=indent, style="bold cyan")


def _extent(audit: Audit, page: Sheet) -> None:
    events = audit.events
    said = f"{phrases.number(events.divergent)} of {phrases.count(events.compared, 'event')}"
    said += " differs" if events.compared == 1 else " differ"
    said += _unaligned(audit)
    if audit.printed_identical is not None:
        said += "; the printed output " + ("did not" if audit.printed_identical else "did too")
    page.paragraph(said, indent=2)
    _sightings(audit, page)
    observed = audit.observed
    if observed.runs > 2:
        page.paragraph(
            f"{phrases.count(observed.distinct, 'distinct outcome')} in {observed.runs} runs; "
            f"{observed.differing_pairs} of {phrases.count(observed.pairs, 'pair')} differ",
            indent=2,
        )


def _unaligned(audit: Audit) -> str:
    alone, drawn = audit.events.unaligned, audit.events.incomparable
    said = f", {phrases.number(alone)} have no counterpart" if alone else ""
    return said + (f", {phrases.number(drawn)} random ones are not comparable" if drawn else "")


def _sightings(audit: Audit, page: Sheet) -> None:
    """Where other pairs of runs first differed, if that was not always the same place."""
    if audit.origin is None or len(audit.sightings) < 2:
        return
    total = sum(sighting.pairs for sighting in audit.sightings)
    others = [s for s in audit.sightings if s.origin.key != audit.origin.key]
    here = total - sum(sighting.pairs for sighting in others)
    page.paragraph(
        f"seen first here in {here} of {phrases.count(total, 'pair')}; elsewhere:", indent=2
    )
    for sighting in others[:_ELSEWHERE_SHOWN]:
        place = _located(sighting.origin, page)
        page.paragraph(f"{place}  {glued(f'in {sighting.pairs} of {total}')}", indent=4)
    if len(others) > _ELSEWHERE_SHOWN:
        more = phrases.count(len(others) - _ELSEWHERE_SHOWN, "more place")
        page.paragraph(f"and {more}", indent=4)


def _confirmation(audit: Audit, page: Sheet) -> None:
    confirmation = audit.confirmation
    if confirmation is None:
        return
    if confirmation.holds:
        page.paragraph(
            "as-is, with another hash seed and poisoned empty memory: also identical", indent=2
        )
        return
    cause = confirmation.cause
    because = ""
    if phrases.held_still(audit):
        because = f"{phrases.repeats_because(cause)}: "
    page.paragraph(f"{because}{FIRST_AS_IS}", indent=2)
    origin = confirmation.origin
    if origin is not None:
        page.paragraph(_located(origin, page), indent=4)
    _cause(cause, page, indent=4)


def _honest_close(audit: Audit, page: Sheet) -> None:
    """What a chance divergence would have had to be like to go unseen."""
    runs = audit.observed.runs
    if audit.command != "run" or runs < 2:
        return
    missed = phrases.missed(runs)
    often = f"{missed:.0%}" if missed >= 0.01 else "less than 1%"
    at_most = "up to " if runs > 2 and missed >= 0.01 else ""
    more = f": {glued(f'--runs {10 if runs < 10 else 2 * runs}')}" if missed >= 0.01 else ""
    page.paragraph(
        f"a divergence in 1 of 4 pairs would be missed {at_most}{often} of the time{more}",
        indent=2,
    )


def _self_check(check: SelfCheck | None, page: Sheet) -> None:
    if check is None:
        return
    if check.differing:
        page.paragraph(
            "the observed program did not end in the state of an unobserved one: "
            f"{_items(check.differing)}",
            indent=2,
            lead="self-check  ",
            style="bold red",
        )
    else:
        page.paragraph(
            "the observed program ended in the state of an unobserved one "
            f"({phrases.count(check.compared, 'item')} compared)",
            indent=2,
            lead="self-check  ",
            style="dim",
        )
    if check.varying:
        page.paragraph(
            f"runs differ by themselves, so nothing is said of {_items(check.varying)}",
            indent=2,
            lead=" " * 12,
        )


def _passes(audit: Audit, page: Sheet) -> None:
    """What it cost to go from modules to ops to tensors, and to find out why."""
    several = any(pass_.name == "modules" for pass_ in audit.passes)
    if not (several or (audit.passes and audit.explanation is not None)):
        return
    said = (glued(phrases.passed(pass_)) for pass_ in audit.passes)
    page.labelled("runs", ", ".join(said))


def _items(names: tuple[str, ...]) -> str:
    shown = [printable(name) for name in names[:_ITEMS_SHOWN]]
    if len(names) > _ITEMS_SHOWN:
        shown.append(f"{phrases.number(len(names) - _ITEMS_SHOWN)} more")
    return phrases.listing(shown)


def _manifests(audit: Audit, page: Sheet) -> None:
    differences = audit.manifest_differences
    if not differences:
        return
    page.paragraph("the runs' manifests differ:", indent=2)
    for difference in differences[:_MANIFESTS_SHOWN]:
        page.paragraph(phrases.manifest_difference(difference), indent=4)
    if len(differences) > _MANIFESTS_SHOWN:
        more = phrases.count(len(differences) - _MANIFESTS_SHOWN, "more field")
        page.paragraph(f"and {more}: --format json", indent=4)
