"""The cause of a backward op, held against what autograd itself says of the node that runs."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

PROGRAMS = Path(__file__).resolve().parent.parent / "zoo" / "programs"
# Nodes that are not named for their op, and what they may belong to. A Function's node belongs to
# the first op of its forward; that of a view in place to the op that wrote, whatever it is.
FUNCTIONS = {
    "functions": {
        "AgainBackward": "aten.t",
        "SquareBackward": "aten.mul",
        "HalveBackward": "aten.mul_",
    },
    "checkpointing reentrant": {"CheckpointFunctionBackward": "aten.t"},
    "hooks": {"BackwardHookFunctionBackward": "aten.view"},
    # Autograd keeps a copy of what the op is about to overwrite.
    "recurrent": {"MulBackward0": "aten.clone"},
    # vmap makes the node first, then brings the operands into shape.
    "transforms": {"PassedGeneratedBackward": "zoo.fault", "MmBackward0": "aten.view"},
    # A view of what was written in place has a node of its own, made when it is next used.
    "views": {"AsStridedBackward0": "aten.slice"},
}
ACCUMULATE = "torch::autograd::AccumulateGrad"
EAGER = [
    "accumulation",
    "amp",
    "attention",
    "averages",
    "checkpointing not",
    "checkpointing reentrant",
    "dtypes",
    "experts",
    "functions",
    "gan",
    "graphs",
    "hooks",
    "lbfgs",
    "normalized",
    "optimizers AdamW loop",
    "parametrized",
    "penalty",
    "recreated",
    "recurrent",
    "resumed",
    "shared",
    "sparse",
    "transforms",
    "views",
]


class Nodes(TorchDispatchMode):
    """Notes, of every op, the node that runs and the program's line that made it, if anomaly mode
    has kept that.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, str | None] | None] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace not in {"profiler", "prim"}:
            node = torch._C._current_autograd_node()
            self.ran.append(None if node is None else (node.name(), _line(node)))
        return func(*args, **(kwargs or {}))


def _line(node) -> str | None:
    made = "".join(node.metadata.get("traceback_", ()))
    places = re.findall(rf'File "{re.escape(str(PROGRAMS))}/(.+?)", line (\d+)', made)
    return ":".join(places[-1]) if places else None


@pytest.fixture
def run_program(record, monkeypatch, tmp_path):
    """Record a program of the zoo in this process: the recording, and the nodes that ran."""

    def run(program: str):
        name, *words = program.split()
        path = PROGRAMS / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        monkeypatch.syspath_prepend(str(PROGRAMS))
        nodes = Nodes()

        def work():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runpy.run_path(str(path), run_name="__main__")

        torch.autograd.set_detect_anomaly(True, check_nan=False)
        try:
            # Below the recorder's mode, whose call sites would else be this file's.
            with nodes:
                return record(work, bases=(str(PROGRAMS),)), nodes.ran
        finally:
            torch.autograd.set_detect_anomaly(False)

    return run


@pytest.mark.parametrize("program", EAGER)
def test_the_cause_is_the_op_that_the_node_is_named_for_at_the_line_that_made_it(
    run_program, program
):
    run, nodes = run_program(program)
    by_index = {event.index: event for event in run.seen}
    named = FUNCTIONS.get(program, {})
    wrong, checked = [], 0
    # What brings memory in is an op too, though an event of another kind.
    no_ops = ("inputs:", "torch.load")
    ops = [e for e in run.seen if e.kind in {"op", "batch"} and not e.op.startswith(no_ops)]
    for event, node in zip(ops, nodes, strict=True):
        assert (event.phase == "backward") == (node is not None)
        if node is None:
            continue
        name, line = node
        cause = by_index.get(event.cause)
        checked += 1
        if name == ACCUMULATE:
            # Of a parameter, or of a tensor that belongs to no module.
            right = (
                cause.kind == "param"
                if event.module or cause
                else event.op == "aten.detach.default"
            )
        elif cause is None:
            right = False
        elif name in named and cause.op.startswith(f"{named[name]}."):
            right = True
        else:
            right = _names(name, cause.op) and line in {None, cause.call_site}
        if not right:
            wrong.append((event.op, name, line, cause and (cause.op, cause.call_site)))
    assert checked
    assert wrong == []


def _names(node: str, op: str) -> bool:
    """Whether `MulBackward0` is the node of `aten.mul_.Tensor`."""
    _, base, _ = op.split(".")
    if node.endswith("CopySlices"):
        return base.endswith("_")
    if node.startswith("GeneratedBackwardFor"):
        return node == f"GeneratedBackwardFor_{op.replace('.', '_')}Backward"
    formula = re.sub(r"Backward\d*$", "", node).lower()
    return base.replace("_", "").removesuffix("forward") == formula


def test_a_backward_in_a_devices_thread_has_its_causes():
    # Torch's own simulation of an accelerator lasts for the process.
    program = Path(__file__).with_name("device_thread.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {here for _, here, *_ in rows} == {False, True}
    made = [row for row in rows if row[2] not in {ACCUMULATE, "NegatedBackward"}]
    assert [row[3] for row in rows if row[2] == "NegatedBackward"] == ["aten.neg.default"]
    assert [row for row in made if row[3] is None or not _names(row[2], row[3])] == []
    # Where the thread has no frame of the program, the line is the one that waits for it.
    lines = program.read_text().splitlines()
    calls = [
        f"{program.name}:{at}"
        for at, line in enumerate(lines, 1)
        if "ward()" in line or "(slope,)" in line or "grad.neg()" in line
    ]
    assert sorted({site for *_, site in rows}) == calls
