"""Whole audits on a CUDA device: a planted race is named, a clean program is clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import repro_audit

_CLEAN = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).cuda()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(3):
    optimizer.zero_grad()
    net(torch.randn(128, 64, device="cuda")).square().mean().backward()
    optimizer.step()
"""

_RACE = """
import torch
torch.manual_seed(0)
source = torch.randn(1_000_000, device="cuda", requires_grad=True)
where = torch.randint(0, 10, (1_000_000,), device="cuda")
total = torch.zeros(10, device="cuda").index_add(0, where, source * 2)
print(total.sum().item())
"""


def _audit(
    place: Path, program: str, *options: str, command: str = "run"
) -> tuple[int, dict[str, Any]]:
    (place / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "repro_audit", command, "program.py", "--format", "json", *options],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_clean_program(tmp_path: Path) -> None:
    code, report = _audit(tmp_path, _CLEAN, "--device", "cuda", "--self-check")
    assert code == 0
    assert report["verdict"] == "identical"


def test_a_race_is_named(tmp_path: Path) -> None:
    code, report = _audit(tmp_path, _RACE, "--device", "cuda")
    assert code == 1
    assert "index_add" in report["first_divergence"]["op"]


def test_a_race_shows_where_its_op_is_called_alone(tmp_path: Path) -> None:
    program = _RACE.replace("1_000_000", "100_000")
    code, report = _audit(tmp_path, program, "--device", "cuda", "--explain", "--no-confirm")
    assert (code, report["cause"]["class"]) == (1, "nondeterministic-op")
    assert report["cause"]["confidence"] == "proven"
    assert report["cause"]["evidence"][1].startswith("alone, on the same inputs, it gave ")


_SEEDED = """
import os
import torch
SEED
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.3)).cuda()
net(torch.ones(128, 64, device="cuda")).sum().backward()
"""


@pytest.mark.parametrize("call", ["manual_seed", "manual_seed_all", "seed", "seed_all"])
def test_a_device_s_seed_is_named(tmp_path: Path, call: str) -> None:
    given = "int.from_bytes(os.urandom(4), 'little')" if call.startswith("manual") else ""
    program = _SEEDED.replace("SEED", f"torch.cuda.init(); torch.cuda.{call}({given})")
    code, report = _audit(tmp_path, program, "--device", "cuda")
    assert (code, report["cause"]["class"]) == (1, "unseeded-rng")
    divergence = report["first_divergence"]
    assert divergence["op"] == f"seed:torch.cuda.{call}"
    assert divergence["call_site"] == "program.py:4"


_MODEL = """
import torch
from torch import nn

def build_model():
    return nn.Sequential(nn.Linear(256, 256), nn.Dropout(0.1), nn.GELU(), nn.Linear(256, 8))

def build_inputs():
    return torch.randn(128, 256)

def build_optimizer(model):
    return torch.optim.SGD(model.parameters(), 0.1)
"""


@pytest.mark.hardware
def test_which_condition_changes_the_bits(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(_MODEL)
    words = ["--vary", "device=cuda,cpu", "--vary", "tf32=off,on", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "repro_audit", "matrix", "model.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    matrix = json.loads(done.stdout)["matrix"]
    assert [answer["changes"] for answer in matrix["answers"]] == [True, True]
    baseline, cpu, tf32 = matrix["cells"]
    assert [cell["outcome"] for cell in (baseline, cpu, tf32)] == ["baseline", "differs", "differs"]
    # Both devices start alike and drop the same elements: what is left is arithmetic.
    for cell in (cpu, tf32):
        assert cell["first_divergence"]["op"] == "aten.addmm.default"
        assert cell["first_divergence"]["phase"] == "forward"
    assert tf32["largest"]["deviation"]["rms"] > cpu["largest"]["deviation"]["rms"] > 0
    assert all(cell["step_seconds"] > 0 for cell in matrix["cells"])


_DROPS = """
import os
import torch
torch.manual_seed(0)
x = torch.nn.functional.dropout(torch.ones(64, 64).to(os.environ["REPRO_AUDIT_DEVICE"]), 0.5)
print(torch.relu(x).sum().item())
"""


def test_devices_that_drop_otherwise(tmp_path: Path) -> None:
    code, report = _audit(tmp_path, _DROPS, "--device", "cpu,cuda")
    assert (code, report["cause"]["class"]) == (1, "config-difference")
    assert report["first_divergence"]["op"] == "aten.relu.default"
    assert (
        "draw other random numbers from one seed, first by other ops: aten.bernoulli_"
        in (report["cause"]["evidence"][0])
    )


def test_devices_that_are_given_what_to_drop(tmp_path: Path) -> None:
    """The cause's remedy."""
    (tmp_path / "program.py").write_text(_DROPS)
    for words, expected in (
        ("record program.py --capture full --device cpu -o A", 0),
        ("verify A --same-start --device cuda", 0),
        ("record program.py --capture full --device cuda -o B", 0),
        ("verify B --same-start --device cpu", 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "repro_audit", *words.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, (words, done.stdout, done.stderr)


_FORKS = """
import torch
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    torch.manual_seed(0)
    net = torch.nn.Linear(16, 4).cuda()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    data = TensorDataset(torch.randn(64, 16))
    for epoch in range(2):
        loader = DataLoader(
            data, 16, num_workers=2, pin_memory=True, multiprocessing_context="fork"
        )
        for (x,) in loader:
            optimizer.zero_grad()
            net(x.cuda(non_blocking=True)).square().mean().backward()
            optimizer.step()
"""

_GRAPH = """
import torch
torch.manual_seed(0)
x = torch.randn(64, 64, device="cuda")
for _ in range(40):
    x = torch.tanh(x @ x)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = x
    for _ in range(200):
        y = torch.tanh(y @ x)
graph.replay()
print((y + 1).sum().item())
"""

_COMPILED = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).cuda()
compiled = torch.compile(net, mode="reduce-overhead")
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(6):
    optimizer.zero_grad()
    compiled(torch.randn(32, 64, device="cuda")).square().mean().backward()
    optimizer.step()
"""


def test_workers_are_forked_from_a_process_that_uses_cuda(tmp_path: Path) -> None:
    code, report = _audit(tmp_path, _FORKS, "--device", "cuda")
    assert (code, report["verdict"]) == (0, "identical")


def test_a_captured_graph_is_replayed_in_each_replica(tmp_path: Path) -> None:
    code, report = _audit(tmp_path, _GRAPH, "--device", "cuda")
    assert (code, report["verdict"]) == (0, "identical")


@pytest.mark.hardware
def test_graphs_of_a_compiled_model(tmp_path: Path) -> None:
    import triton  # noqa: F401 - without it this cannot be tested, and a skip would not say so

    code, report = _audit(tmp_path, _COMPILED, "--device", "cuda")
    assert (code, report["verdict"]) == (0, "identical")


def test_a_program_whose_device_fails_has_failed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import torch\n"
        "x = torch.zeros(4, device='cuda')\n"
        "y = x[torch.tensor([9], device='cuda')]\n"
        "torch.cuda.synchronize()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "repro_audit", "program.py", "--device", "cuda"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr


_RESUMES = """
import os
import sys
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 8))
optimizer = torch.optim.AdamW(net.cuda().parameters(), lr=1e-3)
start = 0
if os.path.exists("last.pt"):
    saved = torch.load("last.pt", weights_only=True)
    net.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
    if "--all" in sys.argv:
        torch.cuda.set_rng_state_all([state.cpu() for state in saved["generators"]])
for step in range(start, 5):
    x = torch.randn(128, 64, generator=torch.Generator().manual_seed(step)).cuda()
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()
    torch.save(
        {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generators": torch.cuda.get_rng_state_all(),
            "step": step + 1,
        },
        "last.pt",
    )
"""


@pytest.mark.parametrize("restores", [False, True])
def test_a_device_s_generator_that_was_not_restored_is_named(
    tmp_path: Path, restores: bool
) -> None:
    options = ["--at", "3", *(["--", "--all"] if restores else [])]
    code, report = _audit(tmp_path, _RESUMES, *options, command="resume")
    (generator,) = [
        item for item in report["resumption"]["state"] if item["name"] == "torch.cuda:0"
    ]
    assert (code, generator["differing"]) == ((0, 0) if restores else (1, 1))
    if not restores:
        assert "dropout" in report["first_divergence"]["op"]
        assert report["cause"]["class"] == "unrestored-state"


@pytest.mark.hardware
def test_ranks_on_a_device_are_compared(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    torch.cuda.set_device(0)
    torch.distributed.init_process_group("nccl", store, rank=0, world_size=1)
    try:
        net = torch.nn.Linear(64, 64).cuda()
        assert repro_audit.check_replicas(net) == 2
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.hardware
def test_what_screens_repeats_itself_on_a_device(tmp_path: Path) -> None:
    program = "from repro_audit.workload import main\nmain()\n"
    options = ["--device", "cuda:0", "--rounds", "2", "--jobs", "1"]
    code, report = _audit(tmp_path, program, *options, command="screen")
    assert (code, report["verdict"]) == (0, "identical")
    (device,) = report["screening"]["devices"]
    assert device["standing"] == "agrees"
    assert device["hardware"] == torch.cuda.get_device_name(0)
