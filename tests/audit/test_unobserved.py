"""What is said beside a verdict of files that runs read and of what they printed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repro_audit.audit.unobserved import _printed, _stale

CODE = "/tmp/torchinductor_me/ab/cab.py"


def reading(*paths: str) -> Any:
    return SimpleNamespace(
        info=SimpleNamespace(name="run-2"), trace=SimpleNamespace(stale_reads=list(paths))
    )


def test_a_compiler_s_cache_is_no_file_of_the_program_s() -> None:
    assert "took compiled code from torch's cache" in _stale(reading(CODE, CODE))
    assert "TORCHINDUCTOR_FORCE_DISABLE_CACHES=1" in _stale(reading(CODE))
    said = _stale(reading(CODE, "last.pt"))
    assert said.startswith("run-2 read last.pt and 1 more, changed since the audit began")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("a\nb\nc\n", "a\nB\nC\n", "things, from line 2 on; compare "),
        ("a\n", "a\nb\n", "things, from line 2 on; compare "),
        ("a", "a\n", "things, from line 1 on; compare "),
    ],
)
def test_where_what_was_printed_parts(tmp_path: Path, one: str, other: str, said: str) -> None:
    runs: list[Any] = []
    for name, text in (("run-1", one), ("run-2", one), ("run-3", other)):
        (tmp_path / f"{name}.out").write_text(text)
        info = SimpleNamespace(trace=str(tmp_path / f"{name}.sqlite"), printed=text)
        runs.append(SimpleNamespace(info=info))
    found = _printed(runs)
    assert said in found
    assert found.endswith(f"{tmp_path / 'run-1.out'} and {tmp_path / 'run-3.out'}")
