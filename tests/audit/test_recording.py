"""Recordings: whole or not there at all, and what comparing them says."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import repro_audit
from repro_audit.errors import UsageError
from repro_audit.trace import Trace

TRAIN = """
import sys, torch
torch.manual_seed(int(sys.argv[1]) if sys.argv[1:] else 0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.ones(3, 4)).square().mean().backward()
    optimizer.step()
"""


@pytest.fixture
def recorded(audit, program) -> Callable[..., None]:
    def record(output: str, *arguments: str, name: str = "train.py", **options: Path) -> None:
        result = audit("record", name, "-o", output, "--", *arguments, **options)
        assert (result.code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"RECORDED  {output}\n")

    program("train.py", TRAIN)
    return record


def test_comparing(audit, program, recorded, tmp_path: Path) -> None:
    recorded("a.audit")
    recorded("b.audit", "1")
    elsewhere = tmp_path / "elsewhere" / "deeper"
    elsewhere.mkdir(parents=True)
    shutil.copy("train.py", elsewhere)
    recorded("c.audit", cwd=elsewhere)
    program("other.py", "import torch\ntorch.zeros(3).sin().cos().exp()\n")
    recorded("other.audit", name="other.py")
    for words, code, says in [
        (["a.audit", "a.audit"], 0, "IDENTICAL  2 traces"),
        (["a.audit", str(elsewhere / "c.audit")], 0, "IDENTICAL  2 traces"),
        (["a.audit", "b.audit"], 1, "torch.manual_seed  (at train.py:2)"),
        (["a.audit", "other.audit"], 4, "DIFFERENT PROGRAM"),
    ]:
        result = audit("compare", *words)
        assert (result.code, result.stderr) == (code, ""), result
        assert says in result.stdout


def test_recordings_at_two_levels_are_not_compared(audit, recorded) -> None:
    recorded("ops.audit")
    assert audit("record", "train.py", "--level", "modules", "-o", "modules.audit").code == 0
    result = audit("compare", "ops.audit", "modules.audit")
    assert (result.code, result.stdout) == (4, "")
    assert "at level ops and modules.audit at level modules" in result.stderr
    assert "the same --level" in result.stderr


def test_comparing_what_is_no_recording(audit, recorded, tmp_path: Path) -> None:
    recorded("a.audit")
    whole = (tmp_path / "a.audit").read_bytes()
    (tmp_path / "half.audit").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.audit").write_text("hello\n")
    (tmp_path / "empty.audit").touch()
    for words, code, says in [
        (["half.audit"], 4, "half.audit"),
        (["text.audit"], 4, "text.audit cannot be read as a trace"),
        (["empty.audit"], 4, "empty.audit is not a repro-audit trace"),
        (["."], 2, ". has no run-1.sqlite"),
        (["none.audit"], 2, "no trace, audit or checkpoint none.audit"),
        (["7"], 2, "no audit 7"),
        ([], 2, "compare needs two traces"),
    ]:
        result = audit("compare", "a.audit", *words)
        assert (result.code, result.stdout) == (code, "")
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    assert (tmp_path / "a.audit").read_bytes() == whole


def test_an_older_recording_stays_until_a_whole_one_is_there(
    audit, started, program, recorded, tmp_path: Path
) -> None:
    recorded("a.audit")
    old = (tmp_path / "a.audit").read_bytes()
    again = ["record", "train.py", "-o", "a.audit"]
    result = audit(*again)
    assert result.code == 2
    assert "--force" in result.stderr

    program("train.py", "print('so far'); raise ValueError('bad')\n")
    result = audit(*again, "--force")
    assert (result.code, result.stdout) == (3, "so far\n")
    assert result.stderr.count("ValueError: bad") == 1
    assert result.stderr.endswith("train.py (run-1) failed with exit code 1\n")

    program("train.py", "import torch\n")
    result = audit(*again, "--force")
    assert result.code == 4
    assert "ran no torch op: there is nothing to record" in result.stderr

    program(
        "train.py",
        "import torch, time\ntorch.ones(1) + 1\nopen('there', 'w').close()\ntime.sleep(60)\n",
    )
    process = started(*again, "--force")
    deadline = time.monotonic() + 60
    while not (tmp_path / "there").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    half = tmp_path / "half.audit"
    (partial,) = tmp_path.glob("a.audit.*.partial")
    shutil.copy(partial, half)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "repro-audit: error: interrupted in run-1\n")
    assert process.returncode == 130

    assert (tmp_path / "a.audit").read_bytes() == old
    assert not partial.exists()
    result = audit("compare", "a.audit", "half.audit")
    assert result.code == 4
    assert "its run did not end" in result.stderr


def test_reports_of_what_is_not_there(audit, program, tmp_path: Path) -> None:
    result = audit("report")
    assert result.code == 2
    assert "no finished audit" in result.stderr
    program("train.py", "import torch\ntorch.ones(1) + 1\n")
    assert audit("train.py", "--no-confirm").code == 0
    assert audit("report").stdout.startswith("IDENTICAL")
    result = audit("report", "9")
    assert result.code == 2
    assert "no audit 9; .repro-audit has 0001-train" in result.stderr
    (tmp_path / ".repro-audit" / "0001-train" / "report.json").write_text('{"schema":')
    result = audit("report", "1")
    assert result.code == 4
    assert "is not a JSON report" in result.stderr
    assert "run the audit again" in result.stderr


API = """
import sys, torch, repro_audit
model = torch.nn.Linear(2, 2)
try:
    with repro_audit.record("api.audit", model=model, force="--force" in sys.argv) as recording:
        model(torch.ones(1, 2))
        recording.step()
        if "--twice" in sys.argv:
            repro_audit.record("other.audit").__enter__()
        if "--raise" in sys.argv:
            raise ValueError("bad")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_recording_around_a_loop(audit, plainly, program, tmp_path: Path) -> None:
    program("loop.py", API)
    assert plainly("loop.py").stdout == ""
    assert plainly("loop.py").stdout.startswith("UsageError api.audit exists; force=True")
    shutil.copy(tmp_path / "api.audit", tmp_path / "first.audit")
    # An error ends the recording as well: what came before it is there.
    assert plainly("loop.py", "--force", "--raise").stdout == "ValueError bad\n"
    assert audit("compare", "first.audit", "api.audit").code == 1
    said = plainly("loop.py", "--force", "--twice").stdout
    assert said.startswith("UsageError a recording is under way")
    assert not list(tmp_path.glob("*.partial*"))


def test_a_recording_sees_numpy_that_is_imported_within_it(plainly, program, tmp_path) -> None:
    """NumPy imports its generators when they are first used."""
    program(
        "loop.py",
        """
        import sys, torch, numpy, repro_audit
        assert "numpy.random" not in sys.modules
        for name in ("one.audit", "two.audit"):
            with repro_audit.record(name):
                numpy.random.seed(3)
                torch.ones(2) * float(numpy.random.rand())
        """,
    )
    assert plainly("loop.py").stdout == ""
    for name in ("one.audit", "two.audit"):
        with contextlib.closing(Trace.open(tmp_path / name)) as trace:
            ops = [trace.site_name(i)[1] for i in range(len(trace))]
        assert [op for op in ops if op.startswith("seed:numpy")], ops


@pytest.mark.parametrize("force", [False, True])
def test_a_recording_is_no_directory(tmp_path: Path, force: bool) -> None:
    with pytest.raises(UsageError, match="it is a directory; name a file in it"):
        repro_audit.record(tmp_path, force=force)
    with pytest.raises(UsageError, match="it is a directory; name a file in it"):
        repro_audit.record_baseline(lambda: None, tmp_path, force=force)


def test_a_budget_is_of_what_is_kept_whole(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give both, or neither"):
        repro_audit.record(tmp_path / "run.audit", budget=1000)
    with repro_audit.record(tmp_path / "run.audit", capture="full", budget=1000):
        pass


def test_a_recording_of_modules(audit, plainly, program, tmp_path: Path) -> None:
    program(
        "loop.py",
        """
        import torch
        import repro_audit as ra

        for number, scale in enumerate((1.0, 1.0, 2.0)):
            ra.seed_everything(0)
            net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
            with ra.record(f"{number}.audit", model=net, level="modules") as recording:
                net(torch.ones(2, 4) * scale).sum().backward()
                recording.step()
        """,
    )
    assert plainly("loop.py").code == 0
    assert audit("compare", "0.audit", "1.audit").code == 0
    result = audit("compare", "0.audit", "2.audit")
    assert result.code == 1
    assert result.stdout.startswith("DIVERGENT  step 0 · data · inputs of Sequential")
