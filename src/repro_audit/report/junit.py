"""The JUnit report: a test case for each question that the audit answered."""

from __future__ import annotations

from xml.etree import ElementTree

from repro_audit.model import Audit
from repro_audit.report import phrases
from repro_audit.report.phrases import printable
from repro_audit.report.story import story
from repro_audit.report.terminal import render_text


def to_junit(audit: Audit) -> str:
    """`audit` as JUnit XML: a failure where runs differ, an error where there is no answer."""
    told = story(audit)
    text = _xml(render_text(audit))
    suite = ElementTree.Element("testsuite", name="repro-audit")
    cases: list[ElementTree.Element] = []

    def case(name: str, seconds: float = 0.0) -> ElementTree.Element:
        found = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_xml(f"repro-audit.{audit.command}.{printable(audit.target)}"),
            name=name,
            time=f"{seconds:.3f}",
        )
        cases.append(found)
        return found

    took = sum(run.seconds or 0.0 for run in audit.runs)
    told_below = audit.matrix is not None or audit.screening is not None
    answer = case("the runs agree", 0.0 if told_below else took)
    subject = " · ".join(told.place.path) if told.place is not None else told.subject
    if audit.verdict == "divergent":
        kind = audit.cause.cls if audit.cause is not None else "divergent"
        ElementTree.SubElement(answer, "failure", type=kind, message=_xml(subject)).text = text
    elif audit.verdict in {"different-program", "inconclusive"}:
        ElementTree.SubElement(
            answer, "error", type=audit.verdict, message=_xml(subject)
        ).text = text
    seconds = {run.name: run.seconds or 0.0 for run in audit.runs}
    for cell in audit.matrix.cells if audit.matrix is not None else ():
        found = case(_xml(printable(cell.name)), sum(seconds.get(run, 0.0) for run in cell.runs))
        if cell.outcome in {"differs", "varies"}:
            place = [] if cell.origin is None else phrases.site(cell.origin.key)
            said = _xml(" · ".join(place))
            ElementTree.SubElement(found, "failure", type=cell.outcome, message=said)
        elif cell.outcome in {"failed", "incomparable"}:
            said = _xml(printable(cell.reason or ""))
            ElementTree.SubElement(found, "error", type=cell.outcome, message=said)
    for device in audit.screening.devices if audit.screening is not None else ():
        found = case(
            _xml(printable(device.name)), sum(seconds.get(run, 0.0) for run in device.runs)
        )
        if device.standing in {"disputed", "single"}:
            said = "there is no other device to tell what is right"
            ElementTree.SubElement(found, "error", type=device.standing, message=said)
        elif device.standing != "agrees":
            place = [] if device.origin is None else phrases.site(device.origin.key)
            said = _xml(printable(device.reason or "") or " · ".join(place))
            ElementTree.SubElement(found, "failure", type=device.standing, message=said)
    if audit.self_check is not None:
        check = case("the audit does not disturb the program")
        if audit.self_check.differing:
            said = ", ".join(printable(name) for name in audit.self_check.differing)
            ElementTree.SubElement(check, "failure", type="self-check", message=_xml(said))
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("time", f"{took:.3f}")
    ElementTree.indent(suite)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return head + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Text without what XML cannot hold; `printable` has escaped the rest."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
