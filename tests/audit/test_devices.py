"""One run on each of several devices, as far as a machine without one can show it: runs whose
traces say that they were there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_audit.audit import loop, session
from repro_audit.audit.request import AuditRequest
from repro_audit.audit.session import Finished, Session
from repro_audit.errors import UsageError
from repro_audit.model import Audit, Plan, RunInfo, Target
from repro_audit.model.codes import KINDS, PHASES, RANDOM
from repro_audit.replicate.census import Census
from repro_audit.trace import Trace, Writer

# (op, value on the CPU, value on CUDA); None where a device does not run it.
Step = tuple[str, bytes | None, bytes | None]


class Quiet:
    def start(self, run: str, position: int, total: int) -> None: ...
    def update(self, steps: int, events: int) -> None: ...
    def finish(self) -> None: ...


def written(path: Path, plan: Plan, steps: list[Step]) -> Trace:
    """The trace of a run of `steps` on the plan's device; values are four bytes, a float32 each."""
    writer = Writer(path, run=plan.run, plan={"device": plan.device, "mode": plan.mode})
    on_cuda = str(plan.device).startswith("cuda")
    spec = writer.spec("float32", (1,), "cuda:0" if on_cuda else "cpu")
    index = 0
    for op, *values in steps:
        value = values[on_cuda]
        if value is None:
            continue
        site = writer.site("net", op)
        flags = RANDOM if "rand" in op else 0
        row = (index, KINDS.index("op"), 0, PHASES.index("forward"), 0, site, 0, None, None, flags)
        writer.events.append(row)
        writer.outputs.append((index, 0, spec, value * 4, None))
        if any(key.op == op for key in plan.capture):
            writer.inputs.append((index, 0, spec, bytes(16), None))
            writer.payload(index, 1, 0, memoryview(value))
        index += 1
    manifest = {"asked": {"device": plan.device}, "versions": {"torch": "2"}}
    writer.close(manifest=manifest, closing={"events": index, "steps": 1})
    return Trace.open(path)


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Audit]:
    """Audits a program of `steps` on the devices given; `plans` are those of its runs."""
    plans: list[Plan] = []

    def run(steps: list[Step], *devices: str, **settings: Any) -> Audit:
        def observed(self: Session, name: str, pass_: str | None = None, **changes: Any) -> Any:
            plan = self.plan(name, **changes)
            plans.append(plan)
            self._count(pass_ or "ops", 1, 0, 1.0)
            trace = written(Path(plan.trace), plan, steps)
            info = RunInfo(name, plan.trace, trace.manifest, printed=name)
            return Finished(info, trace, Census())

        def beside(self: Session, one: Any, other: Any, pass_: str | None = None) -> Any:
            return tuple(observed(self, pass_=pass_, **changes) for changes in (one, other))

        monkeypatch.setattr(session.Session, "observed", observed)
        monkeypatch.setattr(session.Session, "beside", beside)
        target = Target("model-file", "net.py")
        request = AuditRequest(target, devices=devices, root=tmp_path / "audits", **settings)
        plans.clear()
        return loop.run_audit(request, Quiet())

    run.plans = plans  # type: ignore[attr-defined]
    return run


ONE, NEXT = bytes.fromhex("0000803f"), bytes.fromhex("0100803f")
SAME = [("aten.lift_fresh.default", ONE, ONE), ("aten.relu.default", ONE, ONE)]
ROUNDED = [*SAME, ("aten.addmm.default", ONE, NEXT), ("aten.tanh.default", ONE, NEXT)]


def test_the_first_op_that_differs_between_devices(audited) -> None:
    audit = audited(ROUNDED, "cpu", "cuda")
    assert audit.verdict == "divergent"
    assert [(run.name, run.manifest["asked"]["device"]) for run in audit.runs] == [
        ("cpu", "cpu"),
        ("cuda", "cuda"),
    ]
    assert audit.origin.key.op == "aten.addmm.default"
    assert (audit.origin.inputs_identical, audit.origin.ulp.max_ulp) == (True, 1)
    assert audit.cause.cls == "config-difference"
    assert "cpu and cuda compute this op by other kernels" in audit.cause.evidence[0]
    assert (audit.events.compared, audit.events.divergent, audit.events.unaligned) == (4, 2, 0)
    # The pair that keeps its tensors runs on both, and nothing is confirmed or said to differ.
    assert [(plan.run, plan.device) for plan in audited.plans] == [
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("zoom-1a", "cpu"),
        ("zoom-1b", "cuda"),
    ]
    assert audit.confirmation is None
    assert audit.manifest_differences == ()
    assert audit.warnings == ()


def test_equal_bits_on_two_devices(audited) -> None:
    audit = audited(SAME, "cpu", "cuda")
    assert (audit.verdict, audit.events.identical) == ("identical", 2)


def test_other_ops_for_the_same_thing_say_nothing(audited) -> None:
    steps = [
        *SAME,
        ("aten._flash_attention_for_cpu.default", ONE, None),
        ("aten._efficient_attention.default", None, ONE),
        *ROUNDED[2:],
    ]
    audit = audited(steps, "cpu", "cuda")
    assert (audit.verdict, audit.origin.key.op) == ("divergent", "aten.addmm.default")
    assert (audit.events.compared, audit.events.unaligned) == (4, 2)
    only = audited(steps[:4], "cpu", "cuda")
    assert (only.verdict, only.events.unaligned) == ("identical", 2)


def test_draws_are_other_draws(audited) -> None:
    audit = audited([("aten.randn.default", ONE, NEXT)], "cpu", "cuda")
    assert "draw other random numbers" in audit.cause.evidence[0]


def test_several_runs_on_each(audited) -> None:
    audit = audited(ROUNDED, "cpu", "cuda:1", runs=2)
    assert [run.name for run in audit.runs] == [
        "cpu-run-1",
        "cpu-run-2",
        "cuda-1-run-1",
        "cuda-1-run-2",
    ]
    assert (audit.observed.distinct, audit.observed.differing_pairs) == (2, 4)
    assert [plan.device for plan in audited.plans[-2:]] == ["cpu", "cuda:1"]


def test_a_script_that_chooses_its_own(audited) -> None:
    with pytest.raises(UsageError, match=r"no op ran on mps .*REPRO_AUDIT_DEVICE"):
        audited(SAME, "cpu", "mps")
