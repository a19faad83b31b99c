"""Programs as people report them: the same seed, another result, and what the reason was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

HEAD = """
import os, random, numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
"""
SET_OF_HEADS = """
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        tasks = {"depth", "edges", "normals", "parts", "pose"}
        self.heads = torch.nn.ModuleDict({task: torch.nn.Linear(4, 2) for task in tasks})
    def forward(self, x):
        return self.heads["edges"](x)
Net()(torch.ones(1, 4))
"""
LISTED = """
random.seed(0)
files = os.listdir("images")
random.shuffle(files)
torch.from_numpy(np.load("images/" + files[0])) * 1.0
torch.from_numpy(np.load("images/" + files[1])) * 1.0
"""
SEEDED_BY_HASH = """
random.seed(0)
torch.manual_seed(0)
rows = torch.arange(32.0)
class Crops(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, n):
        random.seed(hash(f"{n}.png"))
        at = random.randrange(24)
        return rows[at : at + 4]
for batch in DataLoader(Crops(), 4):
    batch * 2
"""
SAMPLED = """
class Shuffled(torch.utils.data.Sampler):
    def __iter__(self):
        order = np.arange(16)
        SHUFFLE(order)
        return iter(order.tolist())
    def __len__(self):
        return 16
torch.manual_seed(0)
net = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for (x,) in DataLoader(TensorDataset(torch.randn(16, 8)), 8, sampler=Shuffled()):
    net(x).sum().backward()
    optimizer.step()
"""
# What is freed first leaves other bytes in each run: memory fresh from the system is zeros.
NEVER_FILLED = """
import time
torch.manual_seed(0)
class Gate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.empty(64))
    def forward(self, x):
        return x + self.bias
held = [np.full(64, time.time_ns() % 1000003, np.float32) for _ in range(64)]
del held
Gate()(torch.ones(64))
"""
# The batch that the model is handed; the buffer beside it is written before it is read.
PARTLY_FILLED = """
import time
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 8)

    def forward(self, x, out):
        return torch.mul(self.linear(x), 2, out=out)

net = Net()
held = [np.full((32, 64), time.time_ns() % 1000003, np.float32) for _ in range(64)]
del held
batch = torch.empty(32, 64)
batch[:20] = torch.ones(20, 64)
with torch.no_grad():
    net(batch, torch.empty(32, 8)).sum()
"""


@pytest.mark.parametrize(
    ("source", "words", "where", "cause", "says"),
    [
        (SET_OF_HEADS, (), "heads.edges", "data-order", "another hash seed"),
        (LISTED, (), "aten.lift_fresh.default", "data-order", ""),
        (SEEDED_BY_HASH, (), "seed:random.seed", "unseeded-rng", "another seed"),
        (
            SAMPLED.replace("SHUFFLE", "np.random.shuffle"),
            ("--as-is",),
            "aten.stack.default",
            "unseeded-rng",
            "NumPy's global generator was not seeded",
        ),
        (
            SAMPLED.replace("SHUFFLE", "np.random.default_rng().shuffle"),
            ("--no-confirm",),
            "seed:numpy.random.default_rng",
            "unseeded-rng",
            "no fixed seed",
        ),
        (NEVER_FILLED, (), "param:bias", "uninitialized-memory", "torch.empty"),
        (PARTLY_FILLED, (), "aten.addmm.default", "uninitialized-memory", "torch.empty"),
    ],
)
def test_what_was_reported(
    audit, tmp_path: Path, source: str, words: tuple[str, ...], where: str, cause: str, says: str
) -> None:
    (tmp_path / "images").mkdir()
    for n in range(8):
        np.save(tmp_path / "images" / f"{n}.npy", np.full(8, n))
    path = tmp_path / "train.py"
    path.write_text(HEAD + source)
    report: dict[str, Any] = audit(str(path), *words).report
    if report["verdict"] == "identical":
        report = report["confirmation"]
    origin = report["first_divergence"]
    assert where in {origin["op"], origin["module"]}, origin
    assert report["cause"]["class"] == cause, report["cause"]
    assert says in report["cause"]["evidence"][0]
