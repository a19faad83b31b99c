"""Reports for machines that run checks: JUnit, and annotations of GitHub's workflows."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from repro_audit.model import Audit, Warn
from repro_audit.report.github import to_github
from repro_audit.report.junit import to_junit
from repro_audit.report.terminal import render_text


def test_every_audit_is_a_suite(named_audit: tuple[str, Audit]) -> None:
    audit = named_audit[1]
    suite = ElementTree.fromstring(to_junit(audit).encode())
    assert suite.tag == "testsuite"
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases))
    (answer, *_) = cases
    failed = answer.find("failure")
    assert (failed is not None) == (audit.verdict == "divergent")
    unanswered = audit.verdict in {"different-program", "inconclusive"}
    assert (answer.find("error") is not None) == unanswered
    assert suite.get("failures") == str(len(suite.findall("testcase/failure")))


def test_a_failure_tells_what_the_text_tells(audits: dict[str, Audit]) -> None:
    suite = ElementTree.fromstring(to_junit(audits["divergent"]).encode())
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text == render_text(audits["divergent"])
    assert failure.get("type") == "nondeterministic-op"
    assert failure.get("message") == "step 0 · backward · emb · aten.index_put"
    assert suite.get("time") == "8.500"


def test_a_disturbed_program_fails_a_case_of_its_own(audits: dict[str, Audit]) -> None:
    suite = ElementTree.fromstring(to_junit(audits["self-check-differs"]).encode())
    assert [case.find("failure") is not None for case in suite.findall("testcase")] == [False, True]


def test_each_cell_of_a_matrix_is_a_case(audits: dict[str, Audit]) -> None:
    for name in ("matrix", "matrix-failed", "matrix-varies"):
        matrix = audits[name].matrix
        assert matrix is not None
        suite = ElementTree.fromstring(to_junit(audits[name]).encode())
        cases = {case.get("name"): case for case in suite.findall("testcase")}
        for cell in matrix.cells:
            case = cases[cell.name]
            failed = cell.outcome in {"differs", "varies"}
            assert (case.find("failure") is not None) == failed
            assert (case.find("error") is not None) == (cell.outcome in {"failed", "incomparable"})


def test_every_annotation_is_one_line(named_audit: tuple[str, Audit]) -> None:
    said = to_github(named_audit[1])
    assert said.endswith("\n")
    for line in said.splitlines():
        assert line.startswith(("::error ", "::warning ", "::notice "))
        assert all(c.isprintable() for c in line)


def test_the_origin_is_annotated_at_its_line(audits: dict[str, Audit]) -> None:
    (line,) = to_github(audits["divergent"]).splitlines()
    assert line.startswith(
        "::error file=flaky_embedding.py,line=31,"
        "title=The runs differ%3A step 0 · backward · emb · aten.index_put::"
    )
    assert "threads arrive   [torch docs]%0AWhat to try: --deterministic" in line


@pytest.mark.parametrize(("name", "line"), [("", 31), ("-seed", 7)])
def test_of_a_package_the_line_that_called_it(
    audits: dict[str, Audit], name: str, line: int
) -> None:
    said = to_github(audits[f"divergent{name}-in-package"])
    assert said.startswith(f"::error file=train.py,line={line},")


def test_what_would_end_a_command_is_escaped(audits: dict[str, Audit]) -> None:
    warned = replace(audits["identical"], warnings=(Warn("RA101", "50% of\nit", "a,b.py:3"),))
    notice, warning = to_github(warned).splitlines()
    assert notice.startswith("::notice title=The runs are identical%3A 2 of 2 runs%2C 442 events")
    assert warning == "::warning file=a%2Cb.py,line=3,title=RA101::50%25 of\\nit"


def test_a_line_beside_the_program(
    audits: dict[str, Audit], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "examples", "top"):
        (tmp_path / name).mkdir()
    (tmp_path / "examples" / "flaky_embedding.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    audit = replace(audits["divergent"], target="../examples/flaky_embedding.py")
    assert "file=examples/flaky_embedding.py,line=31" in to_github(audit)
    # There may be two of that name: then it is said as it was recorded.
    (tmp_path / "here" / "flaky_embedding.py").touch()
    assert "file=flaky_embedding.py,line=31" in to_github(audit)


def test_a_program_that_was_disturbed_is_an_error(audits: dict[str, Audit]) -> None:
    said = to_github(audits["self-check-differs"])
    assert said.startswith("::error title=The audit disturbed the program")
