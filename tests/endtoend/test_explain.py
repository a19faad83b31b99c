"""Why programs diverge: proven, cured, and shown by a script of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

whole = pytest.mark.whole


def check(audit: Any, program: str, place: Path, *options: str, **environment: str) -> Any:
    """Explain a program's divergence; a proven cause, a cure that cures, a script that shows it."""
    result = audit(program, "--reproducer", str(place), *options, **environment)
    report = result.report
    cure, script = report["explanation"]["cure"], report["reproducer"]
    assert cure is not None, report["explanation"]
    assert (cure["identical"], cure["remaining"]) == (True, None)
    assert script == {"path": str(place / "reproduce.py"), "shows": True, "reason": None}
    return result


@pytest.mark.parametrize(
    ("program", "cls", "op", "line", "pin"),
    [
        pytest.param(
            "draw_too_many",
            "rng-drift",
            "draw:random.random",
            21,
            "draws-by-line",
            marks=whole,
        ),
        pytest.param(
            "racing_threads",
            "parallelism",
            "aten.add_.Tensor",
            20,
            "threads-in-turn",
            marks=whole,
        ),
        pytest.param(
            "set_of_parameters",
            "data-order",
            "aten.pow.Tensor_Scalar",
            17,
            "no-aslr",
            marks=whole,
        ),
        pytest.param(
            "unseeded_generator",
            "unseeded-rng",
            "seed:numpy.random.default_rng",
            8,
            "fixed-seeds",
            marks=whole,
        ),
        pytest.param(
            "uninitialised",
            "uninitialized-memory",
            "aten.nan_to_num.default",
            14,
            "filled-memory",
            marks=whole,
        ),
    ],
)
def test_by_what_was_held(
    audit: Any, tmp_path: Path, program: str, cls: str, op: str, line: int, pin: str
) -> None:
    result = check(audit, f"tests/programs/{program}.py", tmp_path / "shown")
    assert result.report["verdict"] == "divergent"
    assert (result.origin["op"], result.origin["call_site"]) == (op, f"{program}.py:{line}")
    cause = result.report["cause"]
    assert (cause["class"], cause["confidence"]) == (cls, "proven")
    assert result.report["explanation"]["cure"]["pins"] == [pin]


def test_an_op_by_itself(audit: Any, tmp_path: Path) -> None:
    result = check(audit, "examples/flaky_embedding.py", tmp_path / "shown")
    cause, replay = result.report["cause"], result.report["explanation"]["replay"]
    assert (cause["class"], cause["confidence"]) == ("nondeterministic-op", "proven")
    assert result.report["explanation"]["cure"]["pins"] == ["deterministic"]
    assert replay["differing_pairs"] > 0
    assert replay["between"]["differing"] > 0
    assert (tmp_path / "shown" / "inputs.safetensors").stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("program", "cls", "pin"),
    [
        ("set_of_strings", "data-order", "hash-seed"),
        pytest.param("listing", "data-order", "listings", marks=whole),
        pytest.param("uninitialised_large", "uninitialized-memory", "memory", marks=whole),
        pytest.param("unseeded", "unseeded-rng", "seeds", marks=whole),
    ],
)
def test_what_control_held_still(
    audit: Any, tmp_path: Path, program: str, cls: str, pin: str
) -> None:
    result = check(audit, f"tests/programs/{program}.py", tmp_path / "shown")
    assert result.report["verdict"] == "identical"
    cause = result.report["confirmation"]["cause"]
    assert (cause["class"], cause["confidence"]) == (cls, "proven")
    assert result.report["explanation"]["cure"]["pins"] == [pin]


@whole
def test_a_setting_left_to_chance(audit: Any, tmp_path: Path) -> None:
    result = check(audit, "tests/programs/chosen_threads.py", tmp_path / "shown", "--runs", "8")
    cause = result.report["cause"]
    assert (cause["class"], cause["confidence"]) == ("config-difference", "proven")
    assert result.report["explanation"]["cure"]["pins"] == ["one-thread"]


def test_recordings_under_other_settings(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "programs" / "chosen_threads.py"
    ours = [sys.executable, "-m", "repro_audit"]
    for number in "12":
        subprocess.run(
            [*ours, "record", str(program), "-o", f"{number}.audit"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "THREADS": number},
            check=True,
            capture_output=True,
        )
    done = subprocess.run(
        [*ours, "compare", "1.audit", "2.audit"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "aten.dot" in done.stdout
    assert "config-difference" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import torch")
    command = [sys.executable, "-m", "repro_audit", "run", "a.py", "--reproducer", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [*tmp_path.iterdir()] == [tmp_path / "a.py"]
