"""Two replicas in lock-step, in processes: what is caught, and what ends them."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.diagnose.zoomed import look
from repro_audit.errors import ProgramFailedError
from repro_audit.model import Plan, Target
from repro_audit.replicate import launch, lockstep
from repro_audit.trace import Trace

# `odd` is true in the second process that runs it.
HEAD = """
import os, signal, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
here = Path(__file__).parent
try:
    (here / "first").touch(exist_ok=False)
    odd = False
except FileExistsError:
    odd = True

# After how many calls the op of this name errs, in the second process.
errs = {}

def err(x, op):
    calls = errs.setdefault(op, -1)
    errs[op] -= 1
    if odd and calls == 0:
        x.view(torch.int32)[3] += 1

@torch.library.custom_op("test::weak", mutates_args=())
def weak(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    err(y, "weak")
    return y

@torch.library.custom_op("test::weak_", mutates_args={"x"})
def weak_(x: torch.Tensor) -> None:
    y = x.mul(2)
    err(y, "weak_")
    x.copy_(y)

x = torch.arange(1.0, 9.0)
"""


def plans_of(directory: Path, text: str) -> list[Plan]:
    program = directory / "program.py"
    program.write_text(HEAD + textwrap.dedent(text))
    return [
        Plan(
            run=name,
            target=Target("script", str(program)),
            trace=str(directory / f"{name}.sqlite"),
            progress=str(directory / f"{name}.progress"),
        )
        for name in ("zoom-1a", "zoom-1b")
    ]


class Pair:
    """Two runs of a program: their outcomes and traces, `a` and `b`."""

    def __init__(self, directory: Path, text: str) -> None:
        plans = plans_of(directory, text)
        self.paths = [Path(plan.trace) for plan in plans]
        self.outcomes = lockstep.run_pair(*map(lockstep.Start, plans), directory=directory)
        assert all(outcome.returncode == 0 for outcome in self.outcomes if not outcome.apart), (
            self.outcomes[0].err.read_text(),
            self.outcomes[1].err.read_text(),
        )
        self.a, self.b = map(Trace.open, self.paths)

    @property
    def apart(self) -> tuple[bool, bool]:
        return self.outcomes[0].apart, self.outcomes[1].apart

    def divergence(self) -> Divergence:
        found, _, _ = compare(self.a, self.b)
        assert found is not None
        return found

    def printed(self, at: int) -> str:
        return self.outcomes[at].out.read_text()

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    opened: list[Pair] = []

    def make(text: str) -> Pair:
        opened.append(Pair(tmp_path, text))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


Make = Callable[[str], Pair]


def test_replicas_that_agree(pair: Make, tmp_path: Path) -> None:
    # A fork lives on with the line open; threads and the main one interleave freely.
    made = pair(
        """
        def work(name, times):
            y = x + times
            for n in range(times):
                y.add_(n)
                weak(y)
        for n in range(100):
            x.add_(1)
        pid = os.fork()
        if pid == 0:
            torch.ones(3).add_(1)
            time.sleep(60)
            os._exit(0)
        threads = [threading.Thread(target=work, args=(n, 150 + n)) for n in range(2)]
        for thread in threads: thread.start()
        work("", 200)
        for thread in threads: thread.join()
        torch.randn(4)
        print(x.sum().item())
        """
    )
    assert made.apart == (False, False)
    found, counts, _ = compare(made.a, made.b)
    assert found is None
    assert counts.identical > 1000
    assert made.printed(0) == made.printed(1) != ""
    assert all(not Trace.open(path).call(0) for path in made.paths)
    assert max(outcome.seconds for outcome in made.outcomes) < 50


def test_the_op_that_differs_is_caught_with_what_it_was_given(pair: Make) -> None:
    # The first replica runs ahead and overwrites what the op was given, and what it gave.
    made = pair(
        """
        try:
            for n in range(40):
                x.add_(1)
            y = x[::2].clone()
            y.requires_grad_()
            errs["weak"] = 0
            z = weak(x)
            for n in range(40):
                x.add_(1)
                z.add_(1)
            while True:
                x.add_(1)
        finally:
            (here / f"left-{odd}").touch()
        """
    )
    assert made.apart == (True, True)
    origin = made.divergence().origin
    assert (origin.kind, origin.key.op) == ("value", "test.weak.default")
    seen = look(made.a, made.b, origin.key)
    assert seen is not None
    assert (seen.inputs_identical, seen.ulp.differing, seen.ulp.max_ulp) == (True, 1, 1)
    assert seen.ulp.max_values == (44.0, pytest.approx(44.0))
    # The traces end there, in both, and are whole.
    assert len(made.a) == len(made.b) == made.a.find(origin.key) + 1
    assert made.a.closing["outcome"] == made.b.closing["outcome"] == "apart"
    directory = made.paths[0].parent
    assert {path.name for path in directory.glob("left-*")} == {"left-False", "left-True"}


def test_what_is_overwritten_is_kept_as_it_was(pair: Make) -> None:
    made = pair(
        """
        base = torch.arange(1.0, 17.0)
        for n in range(10): base.add_(1)
        errs["weak_"] = 0
        weak_(base[::2])
        for n in range(20): base.add_(1)
        """
    )
    origin = made.divergence().origin
    assert origin.key.op == "test.weak_.default"
    at = made.a.find(origin.key)
    call, memory = made.a.call(at), made.a.payload(at, 0, 0)
    assert call["tensors"][0]["strides"] == [2]
    assert list(memoryview(memory).cast("f"))[::2] == [11.0 + n for n in range(0, 16, 2)]
    output = made.a.payload(at, 1, 0)
    assert list(memoryview(output).cast("f")) == [2 * (11.0 + n) for n in range(0, 16, 2)]
    assert look(made.a, made.b, origin.key).inputs_identical is True


def test_an_op_that_differs_by_chance_is_caught_in_the_act(pair: Make) -> None:
    made = pair(
        """
        import random
        errs["weak"] = random.SystemRandom().randrange(200, 400)
        if odd:
            (here / "at").write_text(str(errs["weak"]))
        for n in range(400):
            x = weak(x)
        """
    )
    origin = made.divergence().origin
    directory = made.paths[0].parent
    assert origin.key.call_index == int((directory / "at").read_text())
    assert look(made.a, made.b, origin.key).inputs_identical is True


def test_a_thread_is_caught_and_the_others_end(pair: Make) -> None:
    made = pair(
        """
        def work():
            y = torch.ones(8)
            errs["weak"] = 250
            for n in range(300):
                y = weak(y)
            time.sleep(100)
        thread = threading.Thread(target=work)
        thread.start()
        while True:
            x.add_(1)
        """
    )
    origin = made.divergence().origin
    assert (origin.key.thread, origin.key.op, origin.key.call_index) == (
        "1",
        "test.weak.default",
        250,
    )
    assert look(made.a, made.b, origin.key).inputs_identical is True
    _, counts, _ = compare(made.a, made.b)
    assert counts.divergent == 1


def test_who_does_not_want_to_end_is_ended(pair: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "_GRACE", 0.5)
    made = pair(
        """
        errs["weak"] = 50
        try:
            for n in range(100):
                x = weak(x)
        except SystemExit:
            while True: time.sleep(0.1)
        """
    )
    assert made.apart == (True, True)
    assert made.divergence().origin.key.call_index == 50


def test_another_path_is_structural(pair: Make) -> None:
    made = pair(
        """
        for n in range(50): x.add_(1)
        if odd: x.mul_(1)
        for n in range(200): x.sub_(1)
        """
    )
    assert made.apart == (False, False)
    found = made.divergence()
    assert (found.origin.kind, found.origin.key.op) == ("structural", "aten.mul_.Tensor")
    assert found.counts.divergent == 1


def test_one_that_ends_earlier_is_structural(pair: Make) -> None:
    made = pair("for n in range(300 if odd else 120): x.add_(1)")
    found = made.divergence()
    assert (found.origin.kind, found.origin.key.call_index) == ("structural", 120)
    assert made.apart == (False, False)


def test_one_that_dies_is_told_by_its_process(tmp_path: Path) -> None:
    # Its fork holds the line open.
    text = """
    for n in range(100):
        x.add_(1)
        if odd and n == 50:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    """
    plans = plans_of(tmp_path, text)
    began = time.monotonic()
    one, other = lockstep.run_pair(*map(lockstep.Start, plans), directory=tmp_path)
    assert time.monotonic() - began < 50
    assert (other.signal, other.ended, one.ended) == ("SIGKILL", False, True)
    assert "zoom-1b) was killed by SIGKILL" in str(launch.failure(other, plans[1]))


def test_one_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "TIMES", 0.0)
    text = """
    for n in range(200):
        x.add_(1)
        if odd and n == 50: time.sleep(100)
    """
    starts = map(lockstep.Start, plans_of(tmp_path, text))
    with pytest.raises(ProgramFailedError) as raised:
        lockstep.run_pair(*starts, directory=tmp_path, patience=3.0)
    said = str(raised.value)
    assert "program.py (zoom-1b) hangs: in lock-step with zoom-1a" in said
    assert "did nothing more for 3 s" in said


def test_threads_that_wait_for_each_others_lock(pair: Make) -> None:
    # The first thread goes first in one replica, the second in the other: each is ahead somewhere.
    made = pair(
        """
        lock = threading.Lock()
        def work(first):
            time.sleep(0 if first != odd else 1)
            y = x.clone()
            with lock:
                for n in range(300): y.add_(1)
        threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    assert made.apart == (False, False)
    assert compare(made.a, made.b)[0] is None
