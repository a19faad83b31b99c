"""Ranks whose weights part, in a run that repeats itself bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RANKS = """
import os
import subprocess
import sys
import uuid
import torch
import torch.distributed as dist
from torch import nn

rank, store, other = int(os.environ.get("RANK", 0)), os.environ.get("STORE"), None
if store is None:
    store = os.path.abspath(uuid.UUID(int=7).hex)
    if os.path.exists(store):
        os.remove(store)
    changes = {"RANK": "1", "STORE": store}
    other = subprocess.Popen([sys.executable, __file__], env={**os.environ, **changes})
dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
"""
PARALLEL = """
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
parallel = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(4):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    parallel(x).square().sum().backward()
    if step == SKIPPED and rank == 1:
        model[2].bias.grad = None
    optimizer.step()
if other is not None:
    assert other.wait() == 0
dist.destroy_process_group()
"""
SHARDED = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step < 2 else 1.0)
for step in range(4):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    warmup.step()
if other is not None:
    assert other.wait() == 0
os._exit(0)
"""


@pytest.mark.parametrize("skipped", [2, 9])
def test_a_rank_that_skips_an_update_is_named(audit, tmp_path: Path, skipped: int) -> None:
    (tmp_path / "train.py").write_text(RANKS + PARALLEL.replace("SKIPPED", str(skipped)))
    found = audit("train.py", "--no-confirm", "--format", "json")
    report = json.loads(found.stdout)
    assert (found.code, report["verdict"]) == (0, "identical")
    drifted = [w["message"] for w in report["warnings"] if w["code"] == "RA115"]
    expected = (
        "replica-drift: after step 2 rank 1 has another module.2.bias, which had been the same on "
        "all ranks; look at what one rank alone does there"
    )
    assert drifted == ([expected] if skipped == 2 else [])


def test_parts_of_a_sharded_model_are_no_replicas(audit, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RANKS + SHARDED.replace("os._exit(0)", ""))
    found = audit("train.py", "--no-confirm", "--format", "json")
    assert found.code == 0, found.stderr
    assert "RA115" not in {w["code"] for w in json.loads(found.stdout)["warnings"]}
