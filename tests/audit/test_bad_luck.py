"""Bad luck while an audit runs: time, interrupts, places and disks; and how a run is set up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

FOREVER = """
import pathlib, torch
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
def step():
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
"""


def test_a_program_that_never_ends(audit, program, first_run, tmp_path: Path) -> None:
    program(
        "sleeps.py",
        """
        import pathlib, time
        try:
            while True: time.sleep(0.1)
        finally:
            pathlib.Path("saved").touch()
        """,
    )
    result = audit("sleeps.py", "--timeout", "1")
    assert result.code == 3
    assert "did not end within 1 s" in result.stderr
    assert "while True: time.sleep(0.1)" in result.stderr
    assert result.stderr.endswith("--timeout S waits longer.\n")
    assert (tmp_path / "saved").exists()

    program(
        "loops.py",
        FOREVER + "try:\n    while True: step()\nfinally: pathlib.Path('last').touch()\n",
    )
    result = audit("loops.py", "--steps", "3", "--runs", "3", "--no-confirm")
    assert result.code == 0
    assert result.stdout.startswith("IDENTICAL  3 of 3 runs")
    assert "3 steps" in result.stdout
    assert (tmp_path / "last").exists()

    program(
        "catches.py",
        FOREVER + "for _ in range(9):\n    try: step()\n    except SystemExit: print('caught')\n",
    )
    result = audit("catches.py", "--steps", "3", "--no-confirm")
    assert result.code == 0
    assert "3 steps" in result.stdout
    assert first_run() == "caught\n"


def test_a_background_job_ignores_sigint_and_its_runs_do_not(
    audit, program, tmp_path: Path
) -> None:
    program(
        "sleeps.py",
        """
        import pathlib, time
        try: time.sleep(60)
        finally: pathlib.Path("saved").touch()
        """,
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = audit("sleeps.py", "--timeout", "1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.code, (tmp_path / "saved").exists()) == (3, True)


def alive(pid: int) -> bool:
    # A process whose parent has gone is reaped by init, or stays a zombie where init does not.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def interrupted(process: subprocess.Popen[str], there: Path) -> tuple[str, str]:
    """What a command prints that is interrupted once a file is there."""
    deadline = time.monotonic() + 120
    while not there.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    return stdout, stderr


@pytest.mark.parametrize("words", [(), ("--explain",)])
def test_an_interrupt_loses_nothing_that_was_found(
    started, program, tmp_path: Path, words: tuple[str, ...]
) -> None:
    program(
        "train.py",
        """
        import os, pathlib, time, torch
        with open("runs", "a") as file: file.write("x")
        done = len(pathlib.Path("runs").read_text())
        torch.ones(2) * min(done, 3)
        if done > 2:
            pathlib.Path("third").touch()
            time.sleep(60)
        """,
    )
    process = started("train.py", *words)
    stdout, stderr = interrupted(process, tmp_path / "third")
    assert stdout.startswith("DIVERGENT  step 0 · forward · aten.mul")
    # Nobody is advised to ask for what was asked for.
    assert ("--explain changes one condition" in stdout) is (not words)
    assert "  interrupted in zoom-1a" in stdout
    assert stderr.startswith("repro-audit: error: interrupted in zoom-1a")
    (kept,) = tmp_path.glob(".repro-audit/0001-train/report.json")
    report = json.loads(kept.read_text())
    assert report["verdict"] == "divergent"
    assert report["reason"].endswith("what is told was found before")


@pytest.mark.parametrize("words", [["train.py"], ["record", "train.py", "-o", "kept.audit"]])
def test_an_interrupt(started, program, tmp_path: Path, words: list[str]) -> None:
    program(
        "train.py",
        """
        import os, pathlib, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        pathlib.Path("pids.part").write_text(f"{os.getpid()} {child.pid}")
        os.rename("pids.part", "pids")
        try: time.sleep(60)
        finally: pathlib.Path("saved").touch()
        """,
    )
    process = started(*words)
    stdout, stderr = interrupted(process, tmp_path / "pids")
    assert (stdout, stderr) == ("", "repro-audit: error: interrupted in run-1\n")
    assert (tmp_path / "saved").exists()
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert not list(tmp_path.glob("kept.audit*"))


def test_places_that_cannot_be_written(audit, program, tmp_path: Path) -> None:
    program("train.py", "raise SystemExit('never run')\n")
    program("file", "mine")
    for words, says in [
        (["-o", "missing/report.txt"], "cannot write missing/report.txt"),
        (["-o", "file/report.txt"], "cannot write file/report.txt"),
        (["-o", "."], "is a directory; name a file in it"),
        (["-o", "file"], "file exists; --force overwrites it"),
    ]:
        for command in ([], ["record"]):
            result = audit(*command, "train.py", *words)
            assert (result.code, result.stdout) == (2, "")
            assert says in result.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / ".repro-audit").exists()
    program(".repro-audit", "mine")
    result = audit("train.py")
    assert result.code == 2
    assert "cannot write audits to .repro-audit: it is a file. Move it" in result.stderr
    assert (tmp_path / ".repro-audit").read_text() == "mine"


def test_bad_luck_with_the_trace(audit, program) -> None:
    for text, code, *says in [
        (
            "import resource\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "import torch\nx = torch.ones(1)\n"
            "for _ in range(9000):\n    try: x = x * 1\n    except Exception: pass",
            2,
            "cannot write the trace",
            "Make room there",
        ),
        (
            "import glob, os, torch\ntorch.ones(1) + 1\n"
            "for path in glob.glob('.repro-audit/*/run-1.sqlite'): os.unlink(path)",
            4,
            "run-1.sqlite was removed while run-1 ran",
            "Run it again",
        ),
        (
            "import shutil, torch\ntorch.ones(1) + 1\nshutil.rmtree('.repro-audit')",
            4,
            "was removed while run-1 ran",
        ),
    ]:
        program("train.py", text + "\n")
        result = audit("train.py", "--no-confirm")
        assert (result.code, result.stdout) == (code, ""), result
        assert all(text in result.stderr for text in says), result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.interpreter
def test_an_error_of_ours_is_not_the_program_s(audit, program) -> None:
    program(
        "train.py",
        """
        import threading
        del threading.Thread.start
        import torch
        """,
    )
    result = audit("train.py")
    assert result.code == 5
    assert "AttributeError: " in result.stderr
    assert "the traceback is in " in result.stderr
    program("train.py", "import torch\ntorch.ones(1) + 1\n")
    result = audit("train.py", env={"REPRO_AUDIT_ENGINE": "none_such"})
    assert result.code == 2
    assert "unset REPRO_AUDIT_ENGINE" in result.stderr


def test_an_error_of_capture_is_not_the_program_s(audit, program) -> None:
    program(
        "train.py",
        """
        import torch
        from repro_audit.capture import dispatch
        dispatch.flags_of = None
        torch.nn.Dropout()(torch.ones(2))
        """,
    )
    result = audit("train.py")
    assert result.code == 5
    assert "'NoneType' object is not callable" in result.stderr
    assert "the traceback is in " in result.stderr


@pytest.mark.parametrize(
    "fails",
    [
        "layer(torch.ones(2, 5))",
        "layer(torch.ones(2, 4), 3)",
        "torch.manual_seed('x')",
        "torch.optim.SGD(layer.parameters(), lr=0.1).step(5)",
        "layer(torch.ones(2, 4)).backward()",
        "torch.load('nothing.pt')",
        "def deeper(x): deeper(x + 1)\ndeeper(torch.ones(1))",
        "import repro_audit\nrepro_audit.fingerprint(3)",
    ],
)
def test_an_error_of_the_program_is_not_ours(audit, program, fails: str) -> None:
    program("train.py", f"import torch\nlayer = torch.nn.Linear(4, 4)\n{fails}\n")
    result = audit("train.py")
    assert result.code == 3, result.stderr
    assert "please report" not in result.stderr


def test_devices_and_modes(audit, program, first_run) -> None:
    program(
        "train.py",
        """
        import os, sys, torch
        print(sys.argv[1:], os.environ.get("REPRO_AUDIT_DEVICE"), torch.initial_seed())
        torch.randn(2) + 1
        """,
    )
    result = audit("train.py", "--as-is", "--", "--device", "cpu")
    assert result.code == 1
    assert "unseeded-rng" in result.stdout
    for words, printed in [
        (["--deterministic"], "[] None 0\n"),
        (["--seed", "7"], "[] None 7\n"),
        (["--device", "cpu", "--", "--seed", "9"], "['--seed', '9'] cpu 0\n"),
    ]:
        assert audit("train.py", "--no-confirm", *words).code == 0
        assert first_run() == printed
    result = audit("train.py", "--device", "cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    assert result.code == 2
    assert "no op ran on cuda (only on cpu), and torch finds no cuda device here" in result.stderr
    assert "repro-audit run train.py --device cuda -- --device cuda" in result.stderr
    result = audit("train.py", "--steps", "1", "--lr", "0.1")
    assert result.code == 2
    assert "repro-audit run train.py --steps 1 -- --lr 0.1" in result.stderr


def test_isolation(audit, program, tmp_path: Path) -> None:
    program(
        "train.py",
        """
        import os, torch
        x = torch.load("last.pt") if os.path.exists("last.pt") else torch.zeros(3)
        torch.save(x + 1, "last.pt")
        """,
    )
    result = audit("train.py", "--isolate", "--no-confirm")
    assert result.code == 0, result
    assert sorted(path.name for path in tmp_path.iterdir()) == [".repro-audit", "train.py"]
    result = audit("train.py")
    assert result.code == 1
    assert "RA101   run-2 read last.pt" in result.stdout
    said = "unknown: run-2 read last.pt, which an earlier run had left or changed"
    assert said in " ".join(result.stdout.split())
    assert (tmp_path / "last.pt").exists()


def test_a_program_that_goes_on_from_where_the_run_before_stopped(audit, program) -> None:
    """The unobserved runs go on too: what they end with says nothing of the first observed one."""
    program(
        "train.py",
        """
        import os, torch
        torch.manual_seed(0)
        if not os.path.exists("done.pt"):
            torch.save(torch.rand(3), "done.pt")
        x = torch.load("done.pt") + 1
        """,
    )
    result = audit("train.py", "--self-check", "--no-confirm")
    assert result.code == 1, result
    said = " ".join(result.stdout.split())
    assert "which an earlier run had left or changed" in said
    assert "self-check the observed program ended in the state of an unobserved one" in said


def test_a_device_that_is_not_there(audit, program) -> None:
    program(
        "net.py",
        "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self):\n"
        "        super().__init__(4, 2)\n",
    )
    words = ["net.py:Net", "--input", "float32[2,4]", "--device", "cuda"]
    result = audit(*words, env={"CUDA_VISIBLE_DEVICES": ""})
    assert result.code == 2
    assert "torch has no device cuda here" in result.stderr
    assert "Traceback" not in result.stderr


def test_processes_that_are_not_observed_are_said(audit, program) -> None:
    program(
        "train.py",
        """
        import subprocess, sys
        import torch

        for options in ("-I", "-S", "-E"):
            subprocess.run([sys.executable, options, "-c", "pass"])
        subprocess.run([sys.executable, "-c", "pass"])
        subprocess.run(["true"])
        torch.nn.Linear(2, 2)(torch.ones(2))
        """,
    )
    result = audit("train.py", "--no-confirm")
    assert result.code == 0
    assert "RA107   Python processes that the program started, not observed: 3" in result.stdout


@pytest.mark.interpreter
def test_file_names_that_are_no_utf_8(audit, program, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.py")
    program(
        "train.py",
        """
        import os, torch
        torch.ones(3).sum()
        for name in os.listdir("data"):
            raise ValueError("cannot read " + name)
        """,
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / odd).touch()
    for words in (["train.py"], ["record", "train.py", "-o", "a.audit"]):
        result = audit(*words)
        assert result.code == 3
        assert "ValueError: cannot read caf" in result.stderr
        assert "please report it" not in result.stderr
    (tmp_path / odd).write_text("import torch\ntorch.ones(3).sum()\n")
    assert audit("record", odd, "-o", "b.audit").code == 0
    assert audit("compare", "b.audit", "b.audit").stdout.startswith("IDENTICAL")
