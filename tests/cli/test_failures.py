"""Every failure is one message that names the way out, and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_audit import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no such thing; do that"), 2),
        (errors.EngineError("no engine cuda; unset REPRO_AUDIT_ENGINE"), 2),
        (errors.ProgramFailedError("the program raised\n\tValueError: 1"), 3),
        (errors.InconclusiveError("no events; import torch"), 4),
        (errors.TraceError("broken; record again"), 4),
        (errors.InterruptedRunError("interrupted in run-2"), 130),
    ],
)
def test_errors_end_with_their_code(audit_command, rooms, error, code: int) -> None:
    rooms.answer = error
    result = audit_command("train.py", "--exit-zero")
    assert result.exit_code == code
    assert result.stderr == f"repro-audit: error: {error}\n"
    assert result.stdout == ""


def test_interrupt(audit_command, rooms) -> None:
    rooms.answer = KeyboardInterrupt()
    result = audit_command("train.py")
    assert result.exit_code == 130
    assert result.stderr.strip() == "repro-audit: error: interrupted"


def test_an_error_of_the_tool_itself(audit_command, rooms, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rooms.answer = RuntimeError("a bug")
    result = audit_command("train.py")
    assert result.exit_code == 5
    first, second = result.stderr.splitlines()
    assert first == "repro-audit: internal error: RuntimeError: a bug"
    (kept,) = tmp_path.glob("repro-audit-*.traceback")
    assert str(kept) in second
    assert "Traceback" in Path(kept).read_text()

    monkeypatch.setenv("REPRO_AUDIT_DEBUG", "1")
    result = audit_command("train.py")
    assert result.exit_code == 5
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("repro-audit: internal error: RuntimeError: a bug\n")


def test_an_error_of_the_tool_where_nothing_can_be_written(
    audit_command, rooms, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    rooms.answer = RuntimeError("a bug")
    assert "REPRO_AUDIT_DEBUG=1" in audit_command("train.py").stderr


def test_messages_carry_no_control_characters(audit_command, rooms) -> None:
    rooms.answer = errors.ProgramFailedError("said \x1b[2J\u202e\nline")
    assert audit_command("train.py").stderr == ("repro-audit: error: said \\x1b[2J\\u202e\nline\n")
