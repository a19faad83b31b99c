"""Whatever a file of torch.save's holds makes a difference."""

from __future__ import annotations

import collections
import dataclasses
import enum
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro_audit.checkpoint import open_checkpoint
from repro_audit.diagnose.checkpoints import compare_pair


def differ(tmp_path: Path, one: Any, other: Any) -> bool:
    """Whether two things are told apart once they are saved."""
    torch.save(one, tmp_path / "one.pt")
    torch.save(other, tmp_path / "other.pt")
    pair = compare_pair(*(open_checkpoint(tmp_path / name) for name in ("one.pt", "other.pt")))
    return bool(pair.tensors or pair.values)


class Kind(enum.Enum):
    A = 1
    B = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    n: int


class Marked(torch.Tensor):
    """A subclass with an attribute."""


def marked(tag: object) -> torch.Tensor:
    made = torch.ones(2).as_subclass(Marked)
    made.tag = tag
    return made


def sequential(**options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(**options))


def buffered(value: float) -> torch.nn.Module:
    module = torch.nn.Module()
    module.register_buffer("passing", torch.full((2,), value), persistent=False)
    return module


def attributed(value: object) -> collections.OrderedDict[str, Any]:
    made: collections.OrderedDict[str, Any] = collections.OrderedDict(a=1)
    made.extra = value
    return made


def optimizer(lr: float) -> torch.optim.Optimizer:
    net = sequential(p=0.1)
    made = torch.optim.Adam(net.parameters(), lr=lr)
    net(torch.ones(1, 2)).sum().backward()
    made.step()
    return made


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (marked(1), marked(2)),
        (marked(torch.ones(1)), marked(torch.zeros(1))),
        (marked(1), torch.ones(2)),
        (sequential(p=0.1), sequential(p=0.5)),
        (buffered(1.0), buffered(2.0)),
        (attributed(1), attributed(2)),
        (attributed(torch.ones(1)), attributed(torch.zeros(1))),
        (optimizer(0.1), optimizer(0.2)),
        (
            {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}},
            {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}},
        ),
        ({"a.b": 1, "a": {"b": 2}}, {"a.b": 3, "a": {"b": 2}}),
        ({1: torch.ones(1), "1": torch.ones(1)}, {1: torch.zeros(1), "1": torch.ones(1)}),
        (collections.deque([7, 8], maxlen=3), collections.deque([7, 8], maxlen=5)),
        ({1, 2}, {"1", "2"}),
        ({"a, b"}, {"a", "b"}),
        (0.0, -0.0),
        (2**60, str(2**60)),
        ({"x": {}}, {}),
        ([], {}),
        (list(range(100)), [*range(99), 100]),
        ("a" * 20_000, "a" * 19_999 + "b"),
        (1, True),
        (1, 1.0),
        (np.array(["a"]), np.array(["b"])),
        ({Kind.A: 1, Kind.B: 2}, {Kind.B: 1, Kind.A: 2}),
        ({Frozen(1)}, {Frozen(2)}),
        ({(Frozen(1), 0): 1}, {(Frozen(2), 0): 1}),
        ({frozenset({1}): 1}, {frozenset({2}): 1}),
        ({"m": {torch.zeros(2)}}, {"m": {torch.zeros(3)}}),
        (torch.float32, "torch.float32"),
        (float("nan"), "nan"),
        ([], "[]"),
        (set(range(200_000)), set(range(1, 200_001))),
        (dict.fromkeys([tuple(range(2000))], 1), dict.fromkeys([tuple(range(1, 2001))], 1)),
        (np.array([{}, 1], object), np.array([{}, 2], object)),
        (np.array([(1, 2.0)], "i4,f8"), np.array([(1, 3.0)], "i4,f8")),
    ],
)
def test_nothing_is_left_out(tmp_path: Path, one: Any, other: Any) -> None:
    assert not differ(tmp_path, one, one)
    assert differ(tmp_path, one, other) == (one is not other)


SHARDED_TENSOR = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meet", rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
for name in "ab":
    held = distribute_tensor(torch.full((4,), float(ord(name))), mesh, [Shard(0)])
    torch.save({"w": held}, f"{sys.argv[1]}/{name}.pt")
dist.destroy_process_group()
"""


def test_tensors_that_wrap_others(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", SHARDED_TENSOR, str(tmp_path)]
    subprocess.run(words, check=True, timeout=120)
    a, b = (open_checkpoint(tmp_path / f"{name}.pt") for name in "ab")
    assert "w._local_tensor" in a.fingerprints
    assert [found.name for found in compare_pair(a, b).tensors] == ["w._local_tensor"]


def test_the_order_of_keys_that_are_objects_is_none(tmp_path: Path) -> None:
    assert not differ(tmp_path, {Kind.A: 1, Kind.B: 2}, {Kind.B: 2, Kind.A: 1})
