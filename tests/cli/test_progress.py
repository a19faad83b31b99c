"""The progress display: on a terminal only, and gone at the end."""

from __future__ import annotations

import io

import pytest

from repro_audit.cli.progress import progress


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _watch(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, quiet: bool) -> str:
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress(quiet=quiet) as shown:
        shown.start("run-1", 1, 2)
        shown.update(12, 34567)
        shown.finish()
        shown.start("run-2", 2, 2)
        shown.finish()
    return terminal.getvalue()


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = _watch(_Terminal(), monkeypatch, quiet=False)
    for said in ("run 1 of 2", "step 12", "34,567 events", "run 2 of 2"):
        assert said in written


@pytest.mark.parametrize(("terminal", "quiet"), [(_Terminal(), True), (io.StringIO(), False)])
def test_silence(terminal: io.StringIO, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watch(terminal, monkeypatch, quiet=quiet) == ""
