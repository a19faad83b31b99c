"""A recording around a block that goes wrong: nothing of it stays in the process or on disk."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

import repro_audit as ra
from repro_audit.audit.recording import Recording
from repro_audit.capture import Recorder
from repro_audit.errors import TraceError, UsageError
from repro_audit.trace import Trace

from .conftest import environment


@pytest.fixture(autouse=True)
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each of these no recording is under way, and ops are torch's own."""
    monkeypatch.chdir(tmp_path)
    seed = torch.seed
    yield
    assert Recording.under_way is None
    assert _get_current_dispatch_mode() is None
    assert torch.seed is seed


def events(path: str | Path) -> int:
    with closing(Trace.open(Path(path))) as trace:
        return len(trace)


def program(text: str, *, size: int | None = None) -> str:
    """What a program prints, in this directory; it can write no file larger than `size`."""

    def limited() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=limited,
    )
    assert done.stderr == ""
    return done.stdout


# -- what fails as it begins ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": [nn.Linear(2, 2)]}, "a list is no model to record; several are one in a torch"),
        ({"optimizer": 3}, "a int is no optimizer; give a torch.optim.Optimizer, or a list"),
        ({"optimizer": ["sgd"]}, "a str is no optimizer"),
        ({"level": "op"}, "'op' is no level; it is ops or modules"),
        ({"capture": "ful"}, "capture='ful' keeps nothing; it is none, sample, full"),
        ({"budget": -1, "capture": "full"}, "budget=-1 is no number of bytes, such as 4 << 30"),
        ({"budget": "4G", "capture": "full"}, "budget='4G' is no number of bytes"),
        ({"budget": True, "capture": "full"}, "budget=True is no number of bytes"),
    ],
)
def test_what_cannot_be_asked_for(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        ra.record("run.audit", **given)
    assert str(caught.value).startswith(says)


def test_several_optimizers() -> None:
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in net]
    counts = []
    for name, given in (("one", optimizers[0]), ("both", optimizers), ("none", [])):
        with ra.record(name, model=net, optimizer=given) as recording:  # type: ignore[arg-type]
            for part, optimizer in zip(net, optimizers, strict=True):
                part(torch.ones(1, 2)).sum().backward()
                optimizer.step()
            recording.step()
        counts.append(events(name))
    # Without an optimizer the model's four parameters are recorded after the step.
    assert counts[1:] == [counts[0], counts[0] + 4]


def test_a_place_in_no_directory() -> None:
    with pytest.raises(UsageError, match=r"^there is no directory no/dir; make it first$"):
        ra.record("no/dir/a.audit")


def test_what_fails_as_it_begins_is_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seed = torch.seed

    def fails(*_: object) -> None:
        raise RuntimeError("no weights")

    with monkeypatch.context() as patched:
        patched.setattr("repro_audit.capture.weights.Weights.weigh", fails)
        with pytest.raises(RuntimeError, match="no weights"):
            ra.record("run.audit", model=nn.Linear(2, 2)).__enter__()
    assert (Recording.under_way, os.listdir(tmp_path)) == (None, [])
    assert torch.seed is seed
    for half in ("Steps.install", "Draws.install", "Recorder.generator_states"):
        owner, name = half.split(".")
        where = {"Steps": "steps", "Draws": "draws", "Recorder": "recorder"}[owner]
        with monkeypatch.context() as patched:
            patched.setattr(f"repro_audit.capture.{where}.{owner}.{name}", fails)
            with pytest.raises(RuntimeError, match="no weights"):
                ra.record("run.audit").__enter__()
        assert (Recording.under_way, os.listdir(tmp_path)) == (None, [])
        assert _get_current_dispatch_mode() is None
        assert torch.seed is seed
    with ra.record("run.audit"):
        torch.ones(3).sum()
    assert events("run.audit") > 0


# -- what happens within it -------------------------------------------------------------------


def test_a_step_is_within_the_block() -> None:
    recording = ra.record("run.audit")
    with pytest.raises(UsageError, match="a step ends within the recording's block"):
        recording.step()
    with recording:
        recording.step()
    with pytest.raises(UsageError, match="a step ends within the recording's block"):
        recording.step()


def test_the_program_goes_to_another_directory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    recording = ra.record("run.audit")
    os.chdir("out")
    with recording:
        torch.ones(3).sum()
        os.chdir("/")
    assert os.listdir(tmp_path / "out") == []
    assert events(tmp_path / "run.audit") > 0
    os.chdir(tmp_path)

    def goes() -> None:
        torch.ones(3).sum()
        os.chdir("/")

    ra.record_baseline(goes, "base.audit")
    assert sorted(os.listdir(tmp_path)) == ["base.audit", "out", "run.audit"]


@pytest.mark.parametrize(("size", "calls"), [(100, 3000), (2000, 0)])
def test_a_full_disk(tmp_path: Path, size: int, calls: int) -> None:
    """In the middle, so that the end finds no room either; or at once, for the model's weights."""
    said = program(
        f"""
        import torch, repro_audit as ra
        m, x = torch.nn.Linear({size}, {size}), torch.ones(10, {size})
        seed = torch.seed
        try:
            with ra.record("run.audit", model=m, capture="full"):
                for _ in range({calls}):
                    m(x)
        except ra.errors.TraceError as error:
            print(error)
        torch.ones(3).sum()
        print(torch.seed is seed)
        with ra.record("small.audit"):
            torch.ones(3).sum()
        """,
        size=2_000_000,
    )
    assert said.startswith(f"cannot write the trace {tmp_path}/run.audit.")
    assert said.endswith("\nTrue\n")
    assert os.listdir(tmp_path) == ["small.audit"]


def test_a_full_disk_leaves_an_older_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.audit").write_text("older")

    def full(*_: object, **__: object) -> None:
        raise TraceError("disk I/O error")

    def recorded(failing: str, patched: pytest.MonkeyPatch) -> None:
        with ra.record("run.audit", force=True):
            torch.ones(3).sum()
            patched.setattr(f"repro_audit.trace.{failing}", full)

    for failing in ("writer.Writer.flush", "writer.Writer.close", "seal.seal"):
        with monkeypatch.context() as patched, pytest.raises(TraceError, match="disk I/O error"):
            recorded(failing, patched)
        assert Recording.under_way is None
        assert os.listdir() == ["run.audit"]
        assert Path("run.audit").read_text() == "older"


# -- forks ------------------------------------------------------------------------------------


def test_a_fork_that_leaves_the_block() -> None:
    said = program(
        """
        import os, sys, torch, repro_audit as ra
        m = torch.nn.Linear(2, 2)
        try:
            with ra.record("run.audit", model=m) as recording:
                m(torch.ones(1, 2))
                pid = os.fork()
                if pid == 0:
                    m(torch.ones(1, 2))
                    recording.step()
                    sys.exit(0)
                print(os.waitpid(pid, 0)[1], os.path.exists("run.audit"), flush=True)
                m(torch.ones(1, 2))
        finally:
            if pid == 0:
                # It may record what it does itself.
                with ra.record("child.audit", model=m):
                    m(torch.ones(1, 2))
        """
    )
    assert said == "0 False\n"
    assert sorted(os.listdir()) == ["child.audit", "run.audit"]
    assert events("run.audit") > events("child.audit") > 0


def test_a_function_that_forks() -> None:
    said = program(
        """
        import os, sys, torch, repro_audit as ra
        def forks():
            torch.ones(3).sum()
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            os.waitpid(pid, 0)
            torch.ones(3).sum()
        print(ra.check_reproducible(forks).verdict, flush=True)
        ra.record_baseline(forks, "base.audit")
        print(ra.check_reproducible(forks, baseline="base.audit").verdict)
        """
    )
    assert said == "identical\nidentical\n"
    assert os.listdir() == ["base.audit"]


def test_recordings_that_are_over_leave_nothing_to_forks() -> None:
    for _ in range(3):
        ra.check_reproducible(lambda: torch.ones(3) + 1)
    with ra.record("run.audit") as recording:
        torch.ones(3).sum()
    gc.collect()
    # As `isinstance` asks objects that warn of it.
    assert not [one for one in gc.get_objects() if type(one) is Recorder]
    assert recording is not None


# -- several of one place ---------------------------------------------------------------------


def test_what_appears_at_its_place_stays() -> None:
    before = ra.record("run.audit")
    Path("run.audit").write_text("precious")
    with pytest.raises(UsageError, match=r"^run.audit exists; force=True overwrites it$"), before:
        pass
    Path("run.audit").unlink()
    said = r"^run\.audit exists; force=True overwrites it; this recording is whole, and stays as "

    def recorded() -> None:
        with before:
            torch.ones(3).sum()
            Path("run.audit").write_text("precious")

    with pytest.raises(UsageError, match=said) as caught:
        recorded()
    assert Path("run.audit").read_text() == "precious"
    kept = str(caught.value).rpartition(" ")[2]
    assert sorted(os.listdir()) == ["run.audit", kept]
    assert events(kept) > 0


def test_two_recordings_of_one_place() -> None:
    first, second = ra.record("run.audit"), ra.record("run.audit")
    with first:
        torch.ones(3).sum()
    whole = Path("run.audit").read_bytes()
    for again in (first, second):
        with pytest.raises(UsageError, match=r"run.audit exists"), again:
            pass
    assert Path("run.audit").read_bytes() == whole


def test_two_processes_that_record_at_one_place() -> None:
    said = program(
        """
        import subprocess, sys, torch, repro_audit as ra
        with ra.record("run.audit", force=True):
            torch.ones(3).sum()
            done = subprocess.run([sys.executable, "-c", '''if True:
                import torch, repro_audit as ra
                with ra.record("run.audit", force=True):
                    torch.ones(3).sum()
            '''])
            torch.ones(3).sum()
        print(done.returncode)
        """
    )
    assert said == "0\n"
    assert os.listdir() == ["run.audit"]


def test_two_commands_that_record_at_one_place(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time, torch\n"
        "torch.ones(3).sum()\n"
        "open(sys.argv[1], 'w').close()\n"
        "while len([n for n in os.listdir() if n.startswith('there')]) < 2: time.sleep(0.05)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    words = "record", "slow.py", "-o", "same.audit"
    first = started(*words, "-f", "--", "there1", "0")
    second = started(*words, "--", "there2", "4")
    assert first.communicate(timeout=120)[1] == ""
    assert first.returncode == 0
    whole = (tmp_path / "same.audit").read_bytes()
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert "same.audit exists by now; this recording is whole, and stays as same.audit." in said
    assert (tmp_path / "same.audit").read_bytes() == whole
    (kept,) = tmp_path.glob("same.audit.*.partial")
    assert events(kept) > 0
