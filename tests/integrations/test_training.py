"""What the callbacks of training frameworks share: a recording that ends, however training does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import repro_audit as ra
from repro_audit.audit.comparing import compare_traces
from repro_audit.errors import UsageError
from repro_audit.integrations.training import TrainingRecording
from repro_audit.trace import Trace


def training(recording: TrainingRecording, steps: int = 2) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.begin(model, [optimizer], 0, 1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
        recording.step(model, [optimizer])


def ending(path: Path) -> tuple[object, ...]:
    trace = Trace.open(path)
    told = trace.closing["outcome"], trace.closing["steps"], trace.closing["error"]
    trace.close()
    return told


def test_trainings_from_one_seed_are_recorded_alike(tmp_path: Path) -> None:
    places = [tmp_path / "a.audit", tmp_path / "b.audit"]
    for place in places:
        recording = TrainingRecording(place)
        training(recording)
        recording.end()
        recording.close()
        assert ending(place) == ("finished", 2, None)
    audit = compare_traces(places)
    assert (audit.verdict, audit.runs[0].manifest["steps"]) == ("identical", 2)


def test_one_left_open_is_ended_by_the_next(tmp_path: Path) -> None:
    left, after = TrainingRecording(tmp_path / "left.audit"), TrainingRecording(tmp_path / "b")
    training(left)
    assert not (tmp_path / "left.audit").exists()
    with pytest.raises(UsageError, match=r"under way in this process, .*left\.audit; end it"):
        ra.check_reproducible(lambda: torch.ones(2).sum())
    training(after, 1)
    assert ending(tmp_path / "left.audit") == (
        "raised",
        2,
        "InterruptedRunError: the training did not come to its end",
    )
    # What is no longer its own it does not end, nor step.
    left.step(nn.Linear(2, 2), [])
    left.close()
    after.end()
    assert ending(tmp_path / "b") == ("finished", 1, None)


def test_closing_tells_of_the_exception(tmp_path: Path) -> None:
    recording = TrainingRecording(tmp_path / "a.audit")

    def fails() -> None:
        try:
            training(recording)
            raise ValueError("no")
        finally:
            recording.close()

    with pytest.raises(ValueError, match="no"):
        fails()
    assert ending(tmp_path / "a.audit") == ("raised", 2, "ValueError: no")


def test_bad_input_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at every hundredth"):
        TrainingRecording(tmp_path / "a.audit", replicas_every=0)
    with pytest.raises(UsageError, match="'foo' is no level"):
        TrainingRecording(tmp_path / "a.audit", level="foo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="budget='4G' is no number of bytes"):
        TrainingRecording(tmp_path / "a.audit", capture="full", budget="4G")  # type: ignore[arg-type]
    (tmp_path / "a.audit").touch()
    with pytest.raises(UsageError, match="force=True overwrites it"):
        training(TrainingRecording(tmp_path / "a.audit"))
    recording = TrainingRecording(tmp_path / "a.audit", force=True, level="modules")
    training(recording)
    recording.end()


ENDS = """
import os, sys
sys.path.insert(0, {tests!r})
from test_training import TrainingRecording, training
recording = TrainingRecording("a.audit")
training(recording)
if sys.argv[1] == "fork":
    if not (child := os.fork()):
        sys.exit()
    os.waitpid(child, 0)
    assert os.path.exists(f"a.audit.{{os.getpid()}}.partial")
    recording.end()
elif sys.argv[1] == "kill":
    os._exit(1)
elif sys.argv[1] == "raise":
    raise ValueError("no")
"""


@pytest.mark.parametrize(
    ("how", "code", "outcome", "error"),
    [
        ("raise", 1, "raised", "ValueError: no"),
        ("exit", 0, "raised", "InterruptedRunError: the training did not come to its end"),
        ("fork", 0, "finished", None),
    ],
)
def test_the_process_s_end_ends_it(
    tmp_path: Path, how: str, code: int, outcome: str, error: str | None
) -> None:
    program = ENDS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program, how], cwd=tmp_path, check=False)
    assert done.returncode == code
    assert ending(tmp_path / "a.audit") == (outcome, 2, error)


def test_a_killed_process_leaves_no_recording(tmp_path: Path) -> None:
    program = ENDS.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", program, "kill"]
    with subprocess.Popen(command, cwd=tmp_path) as killed:
        killed.wait()
    assert os.listdir(tmp_path) == [f"a.audit.{killed.pid}.partial"]


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_a_missing_framework_is_told_of(name: str) -> None:
    program = (
        "import sys, json\n"
        "import repro_audit as ra\n"
        "ra.Guard, ra.check_replicas\n"
        "loaded = [n for n in ('transformers', 'lightning') if n in sys.modules]\n"
        "for missing in ('transformers', 'lightning', 'pytorch_lightning'):\n"
        "    sys.modules[missing] = None\n"
        "try:\n"
        f"    import repro_audit.integrations.{name}\n"
        "except ImportError as error:\n"
        "    print(json.dumps([loaded, str(error)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded, said = json.loads(done.stdout)
    assert loaded == []
    assert said.startswith(f"repro_audit.integrations.{name} needs {name}: pip install")
