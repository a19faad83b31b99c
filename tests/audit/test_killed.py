"""Processes that come to no end of their own: a readable part, and never a false *identical*."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from repro_audit.audit.comparing import compare_traces
from repro_audit.errors import TraceError
from repro_audit.trace import Trace

# The parent goes on, and ends well.
WITH_A_CHILD = """
import ctypes, os, signal, sys, torch
def child():
    torch.ones(3) + 1
    {end}
if os.fork() == 0:
    child()
    os._exit(0)
os.wait()
torch.ones(2) + 1
"""


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("ctypes.string_at(0)", id="segfault"),
        # As the kernel does when memory is short.
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", id="kill"),
        pytest.param("ctypes.CDLL(None)._exit(0)", id="native exit", marks=pytest.mark.whole),
    ],
)
def test_a_process_of_the_program_that_is_lost(audit, program, end: str) -> None:
    program("train.py", WITH_A_CHILD.format(end=end))
    result = audit("train.py")
    assert result.code == 4, result
    assert result.stdout.startswith("INCONCLUSIVE  process 1 of run-1 was killed, or left from")


def test_one_that_the_program_kills_counts_as_far_as_it_came(audit, program) -> None:
    program(
        "train.py",
        """
        import os, signal, time, torch
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            for _ in range(5000):
                torch.ones(3) + 1
            os.write(write, b".")
            time.sleep(60)
        os.read(read, 1)
        os.kill(child, signal.SIGKILL)
        os.wait()
        torch.ones(2) + 1
        """,
    )
    result = audit("train.py", "--no-confirm")
    assert result.code == 0, result
    assert "RA109   did not come to their end" in result.stdout
    assert "process 1" in result.stdout


HANGS = """
import ctypes, os, pathlib, sys, torch
torch.ones(2) + 1
def hang():
    pathlib.Path(f"pid-{os.getpid()}").touch()
    # Python's own lock is held meanwhile, so that no signal's handler runs.
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex), lock(mutex)
"""


def gone(pid: int) -> bool:
    """A kill takes a moment on a machine that is busy."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in {"Z", "X"}:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "where", ["hang()", "child = os.fork()\nif child == 0: hang()\nos.waitpid(child, 0)"]
)
def test_a_hang_in_a_native_lock(audit, program, tmp_path: Path, where: str) -> None:
    program("train.py", f"{HANGS}{where}\n")
    result = audit("train.py", "--timeout", "8")
    assert (result.code, result.stdout) == (3, "")
    assert "train.py (run-1) did not end within 8 s" in result.stderr
    (pid,) = (int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*"))
    assert gone(pid)


FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


def test_a_disk_that_is_full(audit, program) -> None:
    """In a process of the program's, and when only the end of the trace is to be written."""
    head = "import os, resource, torch\n"
    ops = "for _ in range(9000): torch.ones(1) + 1\n"
    for text in (
        f"{head}if os.fork() == 0:\n    {FULL.format(size=200_000)}\n    {ops}    os._exit(0)\n"
        "os.wait()\n",
        f"{head}import glob\ntorch.ones(1) + 1\n"
        "trace = max(glob.glob('.repro-audit/*/run-1.sqlite'))\n"
        f"{FULL.format(size='os.path.getsize(trace)')}\n",
    ):
        program("train.py", text)
        result = audit("train.py", "--no-confirm")
        assert (result.code, result.stdout) == (2, ""), result
        assert "cannot write the trace" in result.stderr
        assert "Make room there" in result.stderr


def test_a_trace_of_another_process_that_is_deleted(audit, program) -> None:
    removing = "for path in glob.glob('.repro-audit/*/run-1.sqlite-processes/*'): os.unlink(path)"
    head = "import glob, os, torch\nif os.fork() == 0:\n    torch.ones(1) + 1\n"
    for text in (
        f"{head}    os._exit(0)\nos.wait()\n{removing}\n",
        f"{head}    {removing}\n    torch.ones(1) + 1\n    os._exit(0)\nos.wait()\n",
    ):
        program("train.py", f"{text}torch.ones(1) + 1\n")
        result = audit("train.py", "--no-confirm")
        assert (result.code, result.stdout) == (4, ""), result
        assert "1.sqlite was removed while run-1 ran" in result.stderr
        assert len(result.stderr.splitlines()) == 1


# Enough for the rows to be written in several transactions.
LONG = """
import torch
torch.set_num_threads(1)
def train():
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        x = torch.randn(2, 4)
        for _ in range(450):
            x = x * 1.001
        net(x).square().mean().backward()
        optimizer.step()
"""

KILLS = """
import json, os, random, signal, sys, time
import repro_audit
folder, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def begun(name):
    child = os.fork()
    if child == 0:
        # Python seeds it anew in a fork.
        random.seed(0)
        with repro_audit.record(os.path.join(folder, name)):
            train()
        os._exit(0)
    return child
# What is imported at the first use is there when it counts.
with repro_audit.record(os.path.join(folder, "first")):
    train()
begin = time.monotonic()
os.waitpid(begun("whole"), 0)
whole = time.monotonic() - begin
moment = random.Random(seed)
for number in range(kills):
    child = begun(str(number))
    time.sleep(moment.uniform(0, 1.05 * whole))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def rows(trace: Trace) -> list[tuple[object, ...]]:
    return [(trace.key(i), trace.signature(i)) for i in range(len(trace))]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.whole)])
def test_kills_at_random_moments(program, tmp_path: Path, kills: int) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    script = program("kills.py", LONG + KILLS)
    words = [sys.executable, str(script), str(folder), str(kills), str(kills)]
    subprocess.run(words, check=True, timeout=1400)
    with closing(Trace.open(folder / "whole")) as trace:
        whole = rows(trace)
    assert len(whole) > 2 * 4096
    parts = set()
    for number in range(kills):
        path = folder / str(number)
        if not path.exists():
            # Its process's number is part of the name; one killed early has left none.
            path = next(folder.glob(f"{number}.*.partial"), path)
        parts.add(left(path, folder / "whole", whole))
    # The kills came while it recorded, and not all at one point of it.
    assert len(parts - {0, len(whole)}) > 1


def left(path: Path, other: Path, whole: list[tuple[object, ...]]) -> int:
    """How many events a process that was killed left behind, each as in one that was not."""
    try:
        with closing(Trace.open(path, partial=True)) as trace:
            found = rows(trace)
    except TraceError:
        found = []
    assert found == whole[: len(found)]
    try:
        verdict = compare_traces([other, path]).verdict
    except TraceError:
        assert not path.name.isdigit()
    else:
        assert (verdict, len(found)) == ("identical", len(whole))
    return len(found)


def child_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.whole)])
def test_runs_that_are_killed(
    started: Callable[..., subprocess.Popen[str]], program, tmp_path: Path, kills: int
) -> None:
    program("train.py", LONG + "train()\n")
    moment = random.Random(kills)
    begin = time.monotonic()
    process = started("train.py", "--no-confirm")
    process.communicate(timeout=100)
    assert process.returncode == 0
    whole = time.monotonic() - begin
    codes = [] if kills > 1 else [3]
    for number in range(2, kills + 2):
        process = started("train.py", "--no-confirm")
        deadline = time.monotonic() + moment.uniform(0.1, 1) * whole
        killed = False
        while process.poll() is None and not killed:
            child = child_of(process.pid)
            if time.monotonic() > deadline and child is not None:
                os.kill(child, 9)
                killed = True
            time.sleep(0.01)
        stdout, stderr = process.communicate(timeout=60)
        codes.append(process.returncode)
        (directory,) = tmp_path.glob(f".repro-audit/{number:04}-*")
        if process.returncode == 0:
            # It came too late: both runs are there.
            assert stdout.startswith("IDENTICAL  2 of 2 runs")
            for run in ("run-1", "run-2"):
                Trace.open(directory / f"{run}.sqlite").close()
        else:
            assert (process.returncode, stdout) == (3, "")
            assert "was killed by SIGKILL (out of memory?)" in stderr
            assert not (directory / "report.json").exists()
    assert 3 in codes
