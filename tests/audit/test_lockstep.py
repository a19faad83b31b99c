"""Audits in lock-step, through the command line: what is said, and what is left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repro_audit.audit.loop import run_audit
from repro_audit.audit.request import AuditRequest
from repro_audit.audit.session import Finished, Session
from repro_audit.model import Plan, RunInfo, Target
from repro_audit.model.codes import PHASES, TAINTED
from repro_audit.replicate.census import Census
from repro_audit.trace import Trace, Writer

HEAD = """
import fcntl, os, random, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
here = Path(__file__).parent
counter = here / "counter"
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))
errs = -1

@torch.library.custom_op("test::weak", mutates_args=())
def weak(x: torch.Tensor) -> torch.Tensor:
    global errs
    y = x.clone()
    if errs == 0:
        y.view(torch.int32)[3] += 1
    errs -= 1
    return y

def alone():
    global lock
    lock = open(here / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

x = torch.arange(1.0, 9.0)
"""


def report(tmp_path: Path) -> dict[str, Any]:
    latest = max(path for path in (tmp_path / ".repro-audit").iterdir() if path.is_dir())
    found: dict[str, Any] = json.loads((latest / "report.json").read_text())
    return found


def passes(said: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(p["name"], p["runs"], p["lockstep"]) for p in said["passes"]]


def codes(said: dict[str, Any]) -> list[str]:
    # That the counter changes between runs is said too.
    return [warning["code"] for warning in said["warnings"] if warning["code"] != "RA101"]


def test_the_first_pair_says_it_all(audit, program, tmp_path: Path) -> None:
    program(
        "errs.py",
        HEAD
        + "print(number)\nerrs = 30 if number % 2 else -1\n"
        + "for n in range(100): x = weak(x)\nprint('end')\n",
    )
    result = audit("errs.py", "--lockstep", "--runs", "5", "--self-check")
    assert result.code == 1
    said = report(tmp_path)
    origin = said["first_divergence"]
    assert (origin["op"], origin["call_index"]) == ("test.weak.default", 30)
    assert (origin["inputs_identical"], origin["ulp"]["max_ulp"]) == (True, 1)
    assert origin["ulp"]["from_runs"] == ["run-1", "run-2"]
    assert (said["events"]["divergent"], said["printed_identical"]) == (1, None)
    # The runs ended early: what they end with, another one tells.
    assert passes(said) == [("ops", 2, 2), ("self-check", 3, 0)]
    assert said["self_check"]["compared"] > 0
    assert said["self_check"]["differing"] == []
    assert codes(said) == []


def test_threads_that_are_cut_off_are_no_warning(audit, program, tmp_path: Path) -> None:
    program(
        "errs.py",
        HEAD
        + "import threading, time\nerrs = 3 if number % 2 else -1\n"
        + "def work():\n    y = x\n    for n in range(10): y = weak(y); time.sleep(0.01)\n"
        + "def wait():\n    for n in range(100): torch.sin(x); time.sleep(0.05)\n"
        + "threads = [threading.Thread(target=target) for target in (wait, work)]\n"
        + "for thread in threads: thread.start()\nfor thread in threads: thread.join()\n",
    )
    assert audit("errs.py", "--lockstep").code == 1
    said = report(tmp_path)
    assert said["first_divergence"]["thread_name"] == "2"
    assert codes(said) == []


def test_replicas_that_agree_end_as_any_run(audit, program, tmp_path: Path) -> None:
    program(
        "agrees.py",
        """
        import os, random, torch
        net = torch.nn.Linear(4, 4)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for n in range(30):
            optimizer.zero_grad()
            torch.nn.functional.dropout(net(torch.randn(2, 4))).sum().backward()
            optimizer.step()
        print(random.random(), torch.get_num_threads(), os.getcwd() == os.path.realpath("."))
        """,
    )
    result = audit("agrees.py", "--lockstep", "--runs", "3", "--self-check", "--no-confirm")
    assert result.code == 0
    assert result.stdout.startswith("IDENTICAL  3 of 3 runs")
    said = report(tmp_path)
    assert passes(said) == [("ops", 3, 2), ("self-check", 2, 0)]
    assert (said["self_check"]["differing"], said["self_check"]["varying"]) == ([], [])
    assert (said["printed_identical"], said["warnings"]) == (True, [])


def test_a_fault_elsewhere_each_time_is_caught(audit, program, tmp_path: Path) -> None:
    program(
        "wanders.py",
        HEAD
        + "errs = random.SystemRandom().randrange(10, 2000) if number % 2 else -1\n"
        + "for n in range(2000): x = weak(x)\n",
    )
    result = audit("wanders.py")
    assert result.code == 1
    said = report(tmp_path)
    origin = said["first_divergence"]
    assert origin["op"] == "test.weak.default"
    assert (origin["inputs_identical"], origin["ulp"]["max_ulp"]) == (True, 1)
    assert passes(said) == [("ops", 2, 0), ("tensors", 2, 2)]
    assert sum(sighting["pairs"] for sighting in said["sightings"]) == 2
    assert codes(said) == []


class Quiet:
    def start(self, run: str, position: int, total: int) -> None: ...
    def update(self, steps: int, events: int) -> None: ...
    def finish(self) -> None: ...


def written(path: Path, plan: Plan, value: bytes, flags: int) -> Trace:
    """The trace of a run of one op that gave this float32."""
    writer = Writer(path, run=plan.run, plan={"device": None, "mode": plan.mode})
    site, spec = writer.site("net", "aten.addmm.default"), writer.spec("float32", (1,), "cpu")
    writer.events.append((0, 0, 0, PHASES.index("forward"), 0, site, 0, None, None, flags))
    writer.outputs.append((0, 0, spec, value * 4, None))
    if plan.capture:
        writer.inputs.append((0, 0, spec, bytes(16), None))
        writer.payload(0, 1, 0, memoryview(value))
    writer.close(manifest={"versions": {"torch": "2"}}, closing={"events": 1, "steps": 1})
    return Trace.open(path)


@pytest.mark.parametrize(
    ("flags", "differs", "said"),
    [
        (0, {"run-2", "zoom-4b"}, "in 3 of 3 pairs, which speaks for a race"),
        (TAINTED, {"run-2", "zoom-4b"}, "where memory that nobody wrote holds something else"),
        (0, {"run-2"}, "did not recur at its origin in 6 further pairs"),
        (0, {"run-2", "zoom-2b"}, None),
    ],
)
def test_a_divergence_that_vanishes_in_lockstep(
    flags: int,
    differs: set[str],
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A pair in lock-step is faked as two runs: what a real one does is tested with `replicate`.
    def observed(self: Session, name: str, pass_: str | None = None, **changes: Any) -> Finished:
        plan = self.plan(name, **changes)
        value = bytes.fromhex("0100803f" if name in differs else "0000803f")
        trace = written(Path(plan.trace), plan, value, flags)
        self._count(pass_ or "ops", 1, 0, 1.0)
        return Finished(RunInfo(name, plan.trace, trace.manifest), trace, Census())

    def beside(self: Session, one: Any, other: Any, pass_: str | None = None) -> Any:
        return tuple(observed(self, pass_=pass_, **changes) for changes in (one, other))

    monkeypatch.setattr(Session, "observed", observed)
    monkeypatch.setattr(Session, "beside", beside)
    audit = run_audit(AuditRequest(Target("script", "net.py"), root=tmp_path / "audits"), Quiet())
    assert audit.verdict == "divergent"
    assert [warning.code for warning in audit.warnings] == (["RA103"] if said else [])
    assert said is None or said in audit.warnings[0].message
    recurs = differs != {"run-2"}
    assert (audit.origin.ulp is not None) == recurs
    if recurs:
        (name,) = differs - {"run-2"}
        assert audit.origin.ulp_runs == (name.replace("b", "a"), name)


def test_a_program_that_cannot_run_twice_at_once(audit, program, tmp_path: Path) -> None:
    program(
        "exclusive.py",
        HEAD
        + "if not alone(): sys.exit('in use')\nerrs = 20 if number % 2 else -1\n"
        + "for n in range(200): x = weak(x)\n",
    )
    result = audit("exclusive.py")
    assert result.code == 1
    said = report(tmp_path)
    assert said["first_divergence"]["ulp"]["max_ulp"] == 1
    assert codes(said) == ["RA110"]
    assert "zoom-1b) failed with exit code 1: in use; --isolate" in said["warnings"][-1]["message"]
    result = audit("exclusive.py", "--lockstep")
    assert result.code == 3
    assert "exclusive.py (run-2) failed with exit code 1" in result.stderr


def test_from_modules_to_an_op_in_lockstep(audit, program, tmp_path: Path) -> None:
    program(
        "modules.py",
        HEAD
        + """
class Weak(torch.nn.Module):
    def forward(self, x):
        return weak(x.exp()).log()
net = torch.nn.Sequential(torch.nn.Linear(8, 8), Weak(), torch.nn.Linear(8, 8))
errs = 3 if number % 2 else -1
with torch.no_grad():
    for n in range(6): net(x)
""",
    )
    result = audit("modules.py", "--level", "modules", "--lockstep")
    assert result.code == 1
    said = report(tmp_path)
    origin = said["first_divergence"]
    assert (origin["step"], origin["module"], origin["op"]) == (3, "1", "test.weak.default")
    assert (origin["inputs_identical"], origin["ulp"]["max_ulp"]) == (True, 1)
    assert passes(said) == [("modules", 2, 2), ("interval", 2, 2)]
