"""The matrix: what an axis changes, what a cell does by itself, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_audit.audit import VerifyRequest, verify
from repro_audit.errors import ProgramFailedError, UsageError
from repro_audit.model import Audit, Cell
from repro_audit.replicate.machine import machine

from .conftest import Silent

pytestmark = pytest.mark.timeout(900)
whole = pytest.mark.whole

# Every row is computed by itself, in whichever order the rows lie; only the norm has kernels of its
# own for each instruction set, and adds up over rows backwards.
STEADY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.weight = nn.Parameter(torch.randn(64))

    def forward(self, x):
        y = self.norm(x * self.weight)
        turned = y.transpose(0, 1).reshape(-1, 64)
        return (turned * 2.0).view(4, -1, 64).transpose(0, 1)

def build_model():
    return Net()

def build_inputs():
    return torch.randn(8, 4, 64)

def build_optimizer(model):
    return torch.optim.SGD(model.parameters(), 0.1)
"""

MIXING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        return torch.tanh(self.norm(x))

def build_model():
    return Net()

def build_inputs():
    return torch.randn(8, 16)
"""


def cells(audit: Audit) -> dict[str, Cell]:
    assert audit.matrix is not None
    return {cell.name: cell for cell in audit.matrix.cells}


def changes(audit: Audit) -> dict[str, bool | None]:
    assert audit.matrix is not None
    return {answer.axis: answer.changes for answer in audit.matrix.answers}


def where(cell: Cell) -> tuple[str, str, str]:
    assert cell.origin is not None
    key = cell.origin.key
    return key.phase, key.module, key.op


def torch_of(audit: Audit, cell: Cell) -> dict[str, object]:
    """What torch's settings were at the end of a cell's first run."""
    manifest = next(run.manifest for run in audit.runs if run.name == cell.runs[0])
    return {**manifest["torch"], **manifest["environment"]}


def test_each_axis_by_itself(matrix) -> None:
    if machine().capability not in {"avx2", "avx512"}:
        pytest.skip("this CPU has one set of kernels")
    audit = matrix(STEADY, "threads=1,2", "isa=default,avx2", "batch=2,8")
    assert (audit.command, audit.verdict) == ("matrix", "divergent")
    assert changes(audit) == {"threads": True, "isa": True, "batch": False}
    found = cells(audit)
    assert list(found) == ["baseline", "threads=2", "isa=avx2", "batch=8"]
    assert [cell.outcome for cell in found.values()] == [
        "baseline",
        "differs",
        "differs",
        "identical",
    ]
    assert [cell.group for cell in found.values()] == [0, 1, 2, 0]
    # Two threads add up in two halves.
    assert where(found["threads=2"]) == (
        "backward",
        "norm",
        "aten.native_layer_norm_backward.default",
    )
    # Another ISA draws other numbers: that is no answer, and so it is given the baseline's.
    isa = found["isa=avx2"]
    assert where(isa)[1:] in {
        ("norm", "aten.native_layer_norm.default"),
        ("norm", "aten.native_layer_norm_backward.default"),
    }
    assert isa.largest is not None
    assert isa.largest.deviation.differing > 0
    assert audit.origin == found["threads=2"].origin
    assert torch_of(audit, isa)["backends.cpu.get_cpu_capability"] == "AVX2"
    assert torch_of(audit, found["threads=2"])["get_num_threads"] == 2
    # The same rows of an outer and of an inner batch; the loss is of all rows.
    batch = found["batch=8"].events
    assert batch is not None
    assert batch.identical == batch.compared >= 5
    assert batch.incomparable >= 1
    assert {pass_.name: pass_.runs for pass_ in audit.passes} == {
        "start": 1,
        "cells": 4,
        "witness": 2,
    }
    assert audit.directory is not None
    # What was kept whole to compare rows is gone, what is compared with stays.
    left = {path.name for path in Path(audit.directory).glob("*.sqlite")}
    assert left == {"start.sqlite", *(f"cell-{at:03}-1.sqlite" for at in range(4))}


def test_rows_that_depend_on_their_batch(matrix) -> None:
    audit = matrix(MIXING, "batch=4,8")
    cell = cells(audit)["batch=8"]
    assert cell.outcome == "differs"
    assert where(cell) == ("forward", "norm", "aten.native_batch_norm.default")
    assert changes(audit) == {"batch": True}
    assert cell.step_seconds is None


def test_more_rows_than_there_are(matrix) -> None:
    with pytest.raises(UsageError, match=r"asks for 16 rows.* have 8") as raised:
        matrix(STEADY, "batch=1,16")
    assert "\n" not in str(raised.value)


def test_compiled_graphs_are_compared_at_their_boundaries(matrix) -> None:
    audit = matrix(STEADY, "compile=eager,aot_eager", repeats=2)
    cell = cells(audit)["compile=aot_eager"]
    assert (cell.outcome, cell.group) == ("identical", 0)
    assert (audit.verdict, changes(audit)) == ("identical", {"compile": False})
    assert cell.events is not None
    # The output and the weights after each step; of the parts of a graph nothing is known.
    assert cell.events.identical == cell.events.compared >= 6
    assert cell.events.unaligned >= 3


@whole
def test_inductor_runs_as_a_cell(matrix) -> None:
    audit = matrix(STEADY, "compile=eager,inductor", jobs=1)
    cell = cells(audit)["compile=inductor"]
    assert cell.outcome in {"identical", "differs"}
    assert cell.events is not None
    assert cell.events.compared >= 6
    assert cell.origin is None or cell.origin.kind == "value"
    trace = next(run.trace for run in audit.runs if run.name == cell.runs[0])
    plan = json.loads(Path(trace).with_suffix(".plan.json").read_text())
    assert (plan["compile"], plan["level"]) == ("inductor", "modules")
    # Side by side nothing is timed; one after the other each cell is, as a user would run it.
    assert all(one.step_seconds and one.step_seconds > 0 for one in cells(audit).values())
    assert {pass_.name: pass_.runs for pass_ in audit.passes} == {
        "cells": 2,
        "timing": 2,
        "witness": 1,
    }


@whole
def test_another_dtype_is_compared_by_what_it_computes(matrix) -> None:
    audit = matrix(STEADY, "dtype=float32,bfloat16")
    cell = cells(audit)["dtype=bfloat16"]
    assert cell.outcome == "differs"
    # Not the weights, which were rounded before.
    assert where(cell) == ("forward", "norm", "module:forward")
    assert cell.origin is not None
    assert cell.origin.kind == "value"
    assert cell.events is not None
    assert cell.events.incomparable >= 4
    assert cell.largest is not None
    assert 1e-4 < cell.largest.deviation.rms < 0.2


SETTINGS = """
import torch
torch.set_num_threads(1)
torch.use_deterministic_algorithms(False)
torch.backends.mkldnn.enabled = True
x = torch.ones(4) * 2
y = x + float(hash("a word") % 1000)
"""


def test_values_are_held_whatever_the_program_sets(matrix) -> None:
    audit = matrix(
        SETTINGS,
        "threads=1,2",
        "mkldnn=on,off",
        "deterministic=off,on",
        "tf32=off,on",
        "hash-seed=0,1",
    )
    found = cells(audit)
    baseline = torch_of(audit, found["baseline"])
    held = {
        "threads=2": ("get_num_threads", 1, 2),
        "mkldnn=off": ("backends.mkldnn.enabled", True, False),
        "deterministic=on": ("are_deterministic_algorithms_enabled", False, True),
        "tf32=on": ("backends.fp32_precision", "ieee", "tf32"),
    }
    for name, (setting, before, after) in held.items():
        assert (baseline[setting], torch_of(audit, found[name])[setting]) == (before, after), name
        assert (found[name].outcome, found[name].group) == ("identical", 0)
    assert torch_of(audit, found["threads=2"])["OMP_NUM_THREADS"] == "2"
    assert torch_of(audit, found["hash-seed=1"])["PYTHONHASHSEED"] == "1"
    assert where(found["hash-seed=1"])[2] == "aten.add.Tensor"
    assert changes(audit)["hash-seed"] is True
    # Verified, a cell is run as what it was.
    trace = next(run.trace for run in audit.runs if run.name == found["threads=2"].runs[0])
    again = verify(VerifyRequest(Path(trace)), Silent())
    assert again.verdict == "identical"
    assert again.runs[-1].manifest["torch"]["get_num_threads"] == 2
    # A program without a step has none to time, side by side or not.
    assert all(cell.step_seconds is None for cell in found.values())


@whole
def test_a_script_is_timed_by_its_optimizer(matrix) -> None:
    script = """
    import torch
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    """
    lines = "\n".join(line.removeprefix("    ") for line in script.splitlines())
    audit = matrix(lines, "mkldnn=on,off", jobs=1)
    assert audit.verdict == "identical"
    assert all(cell.step_seconds for cell in cells(audit).values())


def test_a_cell_that_fails_is_a_result(matrix) -> None:
    text = """
import os, torch
x = torch.ones(4) * 2
if os.environ["OMP_NUM_THREADS"] == "2":
    raise RuntimeError("two are too many")
"""
    audit = matrix(text, "threads=1,2", "mkldnn=on,off")
    cell = cells(audit)["threads=2"]
    assert (cell.outcome, cell.group, cell.runs) == ("failed", None, ())
    assert cell.reason is not None
    assert "RuntimeError: two are too many" in cell.reason
    assert changes(audit) == {"threads": None, "mkldnn": False}
    # What failed has not agreed.
    assert audit.verdict == "inconclusive"
    assert audit.reason == "1 of 3 cells gave no answer, the others agree"
    # One run that fails of two, whichever comes first.
    once = text.replace(
        'os.environ["OMP_NUM_THREADS"] == "2"',
        'os.environ["OMP_NUM_THREADS"] == "2" and not os.path.exists("flag")',
    ).replace("    raise", "    open('flag', 'w').close()\n    raise")
    audit = matrix(once, "threads=1,2", jobs=2, repeats=3)
    cell = cells(audit)["threads=2"]
    assert (cell.outcome, cell.runs, len(audit.runs)) == ("failed", (), 3)
    with pytest.raises(ProgramFailedError, match="two are too many"):
        matrix(text, "threads=2,1")


VARYING = """
import os, torch
x = torch.ones(4) * 2
if torch.get_num_threads() == 2 or ALWAYS:
    x = x.mul(int.from_bytes(os.urandom(3), "little"))
y = x + 1
"""


def test_a_cell_that_varies_is_told_from_one_that_differs(matrix) -> None:
    audit = matrix(VARYING.replace("ALWAYS", "False"), "threads=1,2,3", repeats=2)
    found = cells(audit)
    assert [cell.outcome for cell in found.values()] == ["baseline", "varies", "identical"]
    varies = found["threads=2"]
    assert (varies.group, where(varies)[2]) == (None, "aten.mul.Tensor")
    assert audit.matrix is not None
    (answer,) = audit.matrix.answers
    assert (answer.changes, answer.value, answer.origin) == (True, "2", varies.origin)


@whole
def test_nothing_is_said_of_an_axis_where_the_baseline_varies(matrix) -> None:
    audit = matrix(VARYING.replace("ALWAYS", "True"), "mkldnn=on,off", repeats=2)
    assert [cell.outcome for cell in cells(audit).values()] == ["varies", "varies"]
    assert (audit.verdict, changes(audit)) == ("divergent", {"mkldnn": None})


@whole
def test_a_grid_compares_neighbours(matrix) -> None:
    # Another hash seed changes the bits with one thread alone.
    text = SETTINGS.replace("torch.set_num_threads(1)", "").replace(
        'hash("a word") % 1000', '(hash("a word") % 1000) * (torch.get_num_threads() == 1)'
    )
    audit = matrix(text, "threads=2,1", "hash-seed=0,1", grid=True)
    found = cells(audit)
    assert list(found) == ["baseline", "hash-seed=1", "threads=1", "threads=1 hash-seed=1"]
    assert [cell.group for cell in found.values()] == [0, 0, 1, 2]
    assert audit.matrix is not None
    threads, seeds = audit.matrix.answers
    assert (threads.changes, threads.cell, threads.against) == (True, "threads=1", "baseline")
    assert (seeds.changes, seeds.cell, seeds.against) == (
        True,
        "threads=1 hash-seed=1",
        "threads=1",
    )
