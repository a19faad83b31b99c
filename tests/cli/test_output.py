"""What comes out where, and with which exit code."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from repro_audit.model import SelfCheck, Tolerance
from repro_audit.report.json_report import load, to_json


@pytest.mark.parametrize(
    ("verdict", "options", "code"),
    [
        ("identical", (), 0),
        ("within-tolerance", (), 0),
        ("divergent", (), 1),
        ("divergent", ("--exit-zero",), 0),
        ("different-program", (), 4),
        ("inconclusive", (), 4),
        ("inconclusive", ("--exit-zero",), 4),
    ],
)
def test_exit_codes(audit_command, rooms, divergent, verdict, options, code) -> None:
    rooms.answer = replace(divergent, verdict=verdict)
    assert audit_command("train.py", *options).exit_code == code
    rooms.compared.clear()
    Path("a").touch()
    Path("b").touch()
    assert audit_command("compare", "a", "b", *options).exit_code == code
    assert rooms.compared == [Path("a"), Path("b")]


def test_a_disturbed_program_is_our_error(audit_command, rooms, identical) -> None:
    rooms.answer = replace(identical, self_check=SelfCheck(3, (), ("generator torch",)))
    assert audit_command("train.py", "--self-check", "--exit-zero").exit_code == 5


def test_text_and_json(audit_command, rooms, divergent) -> None:
    rooms.answer = divergent
    assert audit_command("train.py").stdout.startswith("DIVERGENT  step 0 · forward · fc · ")
    result = audit_command("train.py", "--format", "json")
    assert result.stdout == to_json(replace(divergent, words=("run", "train.py")))
    assert result.stderr == ""


def test_a_kept_audit_is_shown_again(audit_command, rooms, divergent, identical) -> None:
    rooms.answer = replace(divergent, directory=".repro-audit/0003-train")
    first = audit_command("train.py")
    assert first.stdout.endswith("  report  repro-audit report 0003 --format json\n")
    rooms.answer = replace(identical, directory=".repro-audit/0012-train")
    audit_command("train.py")

    assert load(Path(".repro-audit/0003-train/report.json")).verdict == "divergent"
    shown = ("3", "0003", ".repro-audit/0003-train", ".repro-audit/0003-train/report.json")
    for word in shown:
        again = audit_command("report", word)
        assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert audit_command("report").stdout.startswith("IDENTICAL")
    asked = replace(rooms.answer, words=("run", "train.py"))
    assert audit_command("report", "--format", "json").stdout == to_json(asked)


def test_the_latest_is_the_latest_that_finished(audit_command, rooms, identical) -> None:
    rooms.answer = replace(identical, directory=".repro-audit/9999-train")
    audit_command("train.py")
    rooms.answer = replace(identical, directory=".repro-audit/10000-train")
    audit_command("train.py")
    Path(".repro-audit/10001-train").mkdir()
    assert json.loads(audit_command("report", "--format", "json").stdout)["directory"].endswith(
        "10000-train"
    )
    result = audit_command("report", "10001")
    assert result.exit_code == 2
    assert "did not finish" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("report", "no finished audit in .repro-audit"),
        ("report 7", "there are none"),
        ("report nothing/here", "no audit nothing/here"),
        ("compare 1 2", "no audit 1"),
        ("compare a b", "repro-audit record TARGET -o FILE.audit"),
        ("compare . .", "no run-1.sqlite"),
    ],
)
def test_what_is_not_there(audit_command, words: str, said: str) -> None:
    result = audit_command(*words.split())
    assert result.exit_code == 2
    assert said in result.stderr


def test_audits_are_compared_by_their_first_runs(audit_command, rooms) -> None:
    for name in ("0001-a", "0002-b"):
        place = Path(".repro-audit") / name
        place.mkdir(parents=True)
        (place / "run-1.sqlite").touch()
    assert audit_command("compare", "1", ".repro-audit/0002-b").exit_code == 0
    assert [path.parent.name for path in rooms.compared] == ["0001-a", "0002-b"]
    assert rooms.tolerances == [Tolerance()]


def test_report_goes_to_a_file_and_the_verdict_to_the_terminal(
    audit_command, rooms, divergent
) -> None:
    rooms.answer = divergent
    result = audit_command("train.py", "--format", "json", "-o", "out.json")
    assert result.exit_code == 1
    assert Path("out.json").read_text() == to_json(replace(divergent, words=("run", "train.py")))
    assert result.stdout.startswith("DIVERGENT")
    assert result.stdout.endswith("  wrote   out.json\n")

    again = audit_command("train.py", "--format", "json", "-o", "out.json")
    assert again.exit_code == 2
    assert "--force overwrites it" in again.stderr
    assert len(rooms.requests) == 1

    quiet = audit_command("train.py", "-o", "out.json", "--force", "--quiet")
    assert (quiet.exit_code, quiet.stdout) == (1, "")
    assert Path("out.json").read_text().startswith("DIVERGENT")


@pytest.mark.parametrize("place", ["none/out.json", ".", "train.py/out.json", "/proc/out.json"])
def test_an_unwritable_place_is_refused_before_anything_runs(
    audit_command, rooms, place: str
) -> None:
    for words in (("train.py",), ("record", "train.py")):
        result = audit_command(*words, "-o", place)
        assert result.exit_code == 2
        assert f"cannot write {place}" in result.stderr
    assert rooms.requests == []
    assert rooms.recorded == []


def test_a_device_file_is_written_without_force(audit_command, rooms) -> None:
    assert audit_command("train.py", "-o", os.devnull).exit_code == 0


def test_record(audit_command, rooms) -> None:
    result = audit_command("record", "train.py", "-o", "a b.audit", "--seed", "5", "--", "-x")
    assert result.exit_code == 0, result.stderr
    ((request, output, force),) = rooms.recorded
    assert (request.seed, request.target.args, output, force) == (
        5,
        ("-x",),
        Path("a b.audit"),
        False,
    )
    assert "repro-audit compare 'a b.audit' OTHER.audit" in result.stdout
    Path("a b.audit").touch()
    assert audit_command("record", "train.py", "-o", "a b.audit").exit_code == 2
    assert audit_command("record", "train.py", "-o", "a b.audit", "-f", "-q").stdout == ""


def test_what_was_found_is_told_where_it_cannot_be_kept(audit_command, rooms, divergent) -> None:
    rooms.answer = replace(divergent, directory="full")
    # Nothing can be written in its place.
    Path("full/report.json").mkdir(parents=True)
    result = audit_command("train.py")
    assert result.exit_code == 2
    assert result.stdout.startswith("DIVERGENT")
    assert result.stderr.startswith("repro-audit: error: cannot write full/report.json: ")
    assert "Make room there." in result.stderr


def test_what_compare_cannot_write_is_in_no_audit(audit_command, rooms, identical) -> None:
    rooms.answer = replace(identical, directory=None)
    Path("there").mkdir()
    Path("gone.json").symlink_to("there/not/report.json")
    for name in "ab":
        Path(f"{name}.audit").touch()
    result = audit_command("compare", "a.audit", "b.audit", "--format", "json", "-o", "gone.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("repro-audit: error: cannot write gone.json: ")
    assert result.stderr.endswith("name another place with -o\n")
