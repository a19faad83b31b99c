"""Screening: a core that computes otherwise is named, and a program that varies accuses nobody."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from repro_audit import workload
from repro_audit.report.json_report import SCHEMA_FILE

CORES = sorted(os.sched_getaffinity(0))[:2]
ONE, OTHER = (f"cpu:{core}" for core in CORES)

# `fault` makes one operator wrong on the core of that number: `always`, the second `once` it runs
# there, or it `fails`; `everywhere` it varies on all of them. `wrong` is wrong on any.
PROGRAM = """
import os, sys
import torch
from torch import nn

fault, core = os.environ.get("FAULT") or sys.argv[1], int(sys.argv[2])
here = os.sched_getaffinity(0) == {core}
ran = f"ran-{min(os.sched_getaffinity(0))}-"
runs = len([name for name in os.listdir() if name.startswith(ran)])
open(f"{ran}{runs}", "w").close()
print(sorted(os.sched_getaffinity(0)), torch.get_num_threads())
if fault == "fails" and here:
    raise RuntimeError("an illegal memory access")
if fault == "leaves":
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
if fault == "affinity":
    os.sched_setaffinity(0, range(os.cpu_count()))
if fault == "beside" and here and runs == 0:
    raise OSError("Address already in use")
wrong = {
    "always": here,
    "once": here and runs == 1,
    "everywhere": bool(runs % 2),
    "wrong": True,
}.get(fault, False)


@torch.library.custom_op("core::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    y = x + x
    if wrong:
        y.view(torch.int32)[0, 3] ^= 1 << 12
    return y


double.register_autograd(lambda context, gradient: gradient * 2)


class Double(nn.Module):
    def forward(self, x):
        return double(x)


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 4), Double(), nn.Linear(4, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
"""


@pytest.fixture
def screened(audit: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Exit code and JSON report of a screening of two cores by the program with a fault."""
    (tmp_path / "train.py").write_text(textwrap.dedent(PROGRAM))

    def call(fault: str, *words: str) -> tuple[int, Any]:
        devices = ("--device", f"{ONE},{OTHER}")
        program = ("--", fault, str(CORES[1]))
        found = audit("screen", "train.py", *devices, "--format", "json", *words, *program)
        assert found.stdout, found.stderr
        return found.code, json.loads(found.stdout)

    return call


def standings(report: Any) -> dict[str, str]:
    return {device["name"]: device["standing"] for device in report["screening"]["devices"]}


def test_cores_that_agree(screened: Callable[..., Any], tmp_path: Path) -> None:
    code, report = screened("none", "--rounds", "2")
    assert (code, report["verdict"]) == (0, "identical")
    assert standings(report) == {ONE: "agrees", OTHER: "agrees"}
    assert report["observed"] == {"runs": 4, "distinct": 1, "differing_pairs": 0, "pairs": 6}
    assert report["events"]["compared"] > 0
    for core in CORES:
        for number in (1, 2):
            (out,) = tmp_path.glob(f".repro-audit/0001-*/cpu-{core}-{number}.out")
            assert out.read_text() == f"[{core}] 1\n"


def test_a_core_that_is_always_wrong_is_one_of_two(screened: Callable[..., Any]) -> None:
    code, report = screened("always", "--rounds", "1")
    assert (code, report["verdict"]) == (1, "divergent")
    jsonschema.validate(report, json.loads(SCHEMA_FILE.read_text()))
    assert {found["name"] for found in report["passes"]} == {"screen", "tensors"}
    assert standings(report) == {ONE: "disputed", OTHER: "disputed"}
    found = report["first_divergence"]
    assert (found["module"], found["op"]) == ("1", "core.double.default")
    assert found["inputs_identical"] is True
    assert (found["ulp"]["differing"], found["ulp"]["max_ulp"]) == (1, 1 << 12)
    assert report["cause"]["class"] == "unknown"


def test_a_core_that_is_wrong_once_is_named(screened: Callable[..., Any]) -> None:
    code, report = screened("once", "--rounds", "2")
    assert (code, report["verdict"]) == (1, "divergent")
    assert standings(report) == {ONE: "agrees", OTHER: "varies"}
    suspect = report["screening"]["devices"][1]
    assert (suspect["differing"], suspect["first_divergence"]["op"]) == (1, "core.double.default")
    assert report["cause"]["class"] == "suspected-hardware"
    assert OTHER in report["cause"]["evidence"][0]
    # A further run of each is right again.
    assert "RA103" in [warning["code"] for warning in report["warnings"]]


def test_a_core_on_which_the_program_fails(screened: Callable[..., Any]) -> None:
    code, report = screened("fails", "--rounds", "2")
    assert (code, report["verdict"]) == (1, "divergent")
    assert standings(report) == {ONE: "agrees", OTHER: "failed"}
    assert "an illegal memory access" in report["screening"]["devices"][1]["reason"]
    assert len(report["runs"]) == 2


def test_a_run_that_fails_beside_others_is_made_alone(screened: Callable[..., Any]) -> None:
    code, report = screened("beside", "--rounds", "1")
    assert (code, report["verdict"]) == (0, "identical")
    (warning,) = report["warnings"]
    assert warning["code"] == "RA116"
    assert "Address already in use" in warning["message"]


def test_a_program_stays_on_its_core(screened: Callable[..., Any]) -> None:
    code, report = screened("affinity", "--rounds", "1")
    assert (code, standings(report)) == (0, {ONE: "agrees", OTHER: "agrees"})


def test_a_program_that_leaves_its_device_is_misuse(
    audit: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(textwrap.dedent(PROGRAM))
    found = audit("screen", "train.py", "--device", f"{ONE},{OTHER}", "--", "leaves", "0")
    assert found.code == 2
    assert "sets CUDA_VISIBLE_DEVICES itself" in found.stderr


def test_a_program_that_varies_accuses_nobody(screened: Callable[..., Any]) -> None:
    code, report = screened("everywhere", "--rounds", "2")
    assert (code, report["verdict"]) == (4, "inconclusive")
    assert "it is the program that does" in report["reason"]
    assert report["cause"] is None


def test_a_program_that_fails_everywhere(audit: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import torch\ntorch.ones(2) @ torch.ones(3)\n")
    found = audit("screen", "broken.py", "--rounds", "1", "--device", f"{ONE},{OTHER}")
    assert found.code == 3
    assert "inconsistent tensor size" in found.stderr


def test_what_comes_along_agrees_on_every_core(audit: Callable[..., Any]) -> None:
    words = ("--rounds", "1", "--device", f"{ONE},{OTHER}")
    found = audit("screen", *words, "--format", "json", "--", "--size", "32", "--steps", "2")
    report = json.loads(found.stdout)
    assert (found.code, report["verdict"]) == (0, "identical")
    assert report["target"] == "-m repro_audit.workload"
    assert report["events"]["compared"] > 300


def test_every_part_of_what_comes_along_learns() -> None:
    """Zeros that are multiplied with would hide a unit that is wrong."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for size in (32, 256):
        model = workload.Workload(size, dtypes)
        integers = torch.ones(size, size, dtype=torch.int64)
        images = workload.drawn(8, 3, 8, 8, seed=1)
        model(workload.drawn(size, size, seed=0), images, integers).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad == 0).float().mean() < 0.01, name


def test_recordings_of_several_machines(audit: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(textwrap.dedent(PROGRAM))
    # As a machine would have it: nothing that a recording tells of differs.
    for name, fault in (("a", ""), ("b", ""), ("odd", "wrong"), ("d", "")):
        words = ("train.py", "-o", f"{name}.audit", "--", "none", "0")
        assert audit("record", *words, env={"FAULT": fault}).code == 0
    recordings = ("a.audit", "b.audit", "odd.audit", "d.audit")
    found = audit("screen", *recordings, "--format", "json")
    report = json.loads(found.stdout)
    assert (found.code, report["verdict"]) == (1, "divergent")
    assert standings(report) == {"a": "agrees", "b": "agrees", "odd": "differs", "d": "agrees"}
    assert report["first_divergence"]["op"] == "core.double.default"
    assert report["cause"]["remedies"][0].startswith("record it again, as often on each")
    assert audit("screen", "a.audit", "b.audit", "-q").code == 0
    assert "--rounds is for a program" in audit("screen", *recordings, "--rounds", "2").stderr
    twice = audit("screen", "a.audit", "b.audit", "a.audit")
    assert (twice.code, "a.audit is named twice" in twice.stderr) == (2, True)
    words = ("train.py", "-o", "seed.audit", "--seed", "1", "--", "none", "0")
    assert audit("record", *words).code == 0
    other = audit("screen", *recordings, "seed.audit")
    assert (other.code, "asked.seed is 0 and 1" in other.stderr) == (4, True)
    alone = audit("screen", "a.audit")
    assert (alone.code, "one recording compares with nothing" in alone.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "gpu"), "'gpu' is no device"),
        (("--device", "cuda"), "torch finds no device cuda here. There are: cpu"),
        (("--device", "cpu:4096"), "there is no core cpu:4096 here"),
        (("--device", f"{ONE},cpu"), f"{ONE} is named twice"),
        (("--device", ONE, "--rounds", "1"), f"one run of {ONE} compares with nothing"),
        (("missing.py",), "missing.py does not exist"),
        (("--steps", "0"), "Invalid value for '--steps'"),
    ],
)
def test_misuse(audit: Callable[..., Any], words: tuple[str, ...], said: str) -> None:
    found = audit("screen", *words)
    assert found.code == 2
    assert said in found.stderr
    assert not Path(".repro-audit").exists()
