"""A guarded training is as one that is not: no bit, no tensor, no draw is another."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import repro_audit as ra


class Net(nn.Module):
    """Draws, keeps buffers, and gives every kind of gradient."""

    def __init__(self, *, sparse: bool = False, recomputed: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8, sparse=sparse)
        self.layer = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
        self.head = nn.Linear(8, 1)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.register_buffer("calls", torch.zeros(3))
        self.register_buffer("expanded", torch.ones(1).expand(3))
        self.register_buffer("scratch", None)
        self.recomputed = recomputed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.frozen(self.embedding(x))
        self.calls = self.calls + 1
        x = checkpoint(self.layer, x, use_reentrant=False) if self.recomputed else self.layer(x)
        return self.head(x)


def seeded() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def generators() -> list[object]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]


def end_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[object]:
    """All that training left, bit by bit."""
    state = [t for entry in optimizer.state.values() for t in entry.values()]
    held = [*model.state_dict().values(), *(t for t in state if isinstance(t, torch.Tensor))]
    return [[t.tolist() for t in held], gradients(model), generators()]


def gradients(model: nn.Module) -> list[object]:
    return [None if p.grad is None else p.grad.to_dense().tolist() for p in model.parameters()]


def train(every: int | None, kind: str) -> tuple[list[object], int]:
    """Six calls, accumulated by two; what is left in the end, and how often forward was called."""
    seeded()
    model = Net(sparse=kind == "sparse", recomputed=kind == "recomputed")
    forward = torch.compile(model, backend="aot_eager") if kind == "compiled" else model
    # AdamW takes no sparse gradients.
    optim = torch.optim.SGD if kind == "sparse" else torch.optim.AdamW
    optimizer = optim(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=kind == "scaled", init_scale=64.0)
    times: list[object] = []
    model.register_forward_pre_hook(lambda module, inputs: times.append(inputs))
    guard = None if every is None else ra.Guard(forward, every=every)
    seen: list[object] = []
    for n in range(6):
        batch = torch.randint(12, (16,))

        def step(batch: torch.Tensor = batch) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "scaled"):
                loss = (forward(batch) * random.random() + np.random.rand()).square().mean()
            scaler.scale(loss).backward()
            return loss

        loss = step() if guard is None else guard(step)
        assert loss.grad_fn is not None
        seen.append((loss.item(), gradients(model)))
        if n % 2:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=n < 3)
    return [*seen, end_of(model, optimizer)], len(times)


@pytest.mark.parametrize("kind", ["plain", "sparse", "recomputed", "scaled", "compiled"])
def test_a_guarded_training_ends_as_one_that_is_not(kind: str) -> None:
    plain, once = train(None, kind)
    guarded, often = train(1, kind)
    assert guarded == plain
    # The first call is never checked.
    assert (once, often) == (6, 11)


def test_gradients_stay_the_tensors_that_they_are() -> None:
    model = nn.Linear(4, 2)
    bucket = torch.zeros(10)
    model.weight.grad, model.bias.grad = bucket[:8].view(2, 4), None
    kept = model.weight.grad
    guard = ra.Guard(model, every=2)
    seen = []

    def step() -> None:
        seen.append((model.weight.grad is kept, kept.tolist(), model.bias.grad))
        model.weight.grad += 1
        model.bias.grad = torch.ones(2)

    guard(lambda: None)
    guard(step)
    assert seen == [(True, [[0.0] * 4] * 2, None)] * 2
    assert model.weight.grad is kept
    assert bucket.tolist() == [1.0] * 8 + [0.0] * 2


class Late(nn.Module):
    """Makes a parameter and buffers when it is first called, and one anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "mask"):
            self.register_buffer("mask", torch.rand(2))
        self.register_buffer("last", x.detach().sum(), persistent=False)
        return self.linear(x) * self.mask


def test_what_a_call_makes_is_made_once() -> None:
    seeded()
    model = Late()
    guard = ra.Guard(model, every=1)
    # The first is not checked anyway; this one would be.
    guard(lambda: None)
    made = []

    def step() -> torch.Tensor:
        made.append(model(torch.rand(3, 4)))
        return made[-1]

    guard(step)
    assert len(made) == 1
    del model.mask
    guard(step)
    assert torch.equal(made[1], made[2])
    assert {"mask", "last"} <= {name for name, _ in model.named_buffers()}


def test_nothing_is_kept_of_the_first_call() -> None:
    gone: list[weakref.ref[torch.Tensor]] = []
    guard = ra.Guard(nn.Linear(2, 2), every=1)

    def step() -> torch.Tensor:
        assert all(made() is None for made in gone)
        result = torch.ones(2, requires_grad=True) * 2
        gone.append(weakref.ref(result))
        return result

    for _ in range(2):
        guard(step)
    assert len(gone) == 3


def test_meta_parameters_have_nothing_to_check() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    guard = ra.Guard(model, every=1)

    def step() -> torch.Tensor:
        loss = model(torch.ones(4, 2, device="meta")).sum()
        loss.backward()
        return loss

    for _ in range(3):
        assert guard(step).is_meta


def test_an_audit_sees_a_guarded_program_as_it_is(tmp_path: Path, command_line: Any) -> None:
    (tmp_path / "train.py").write_text(
        "import torch, repro_audit as ra\n"
        "model = torch.nn.Linear(2, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "guard = ra.Guard(model, every=2)\n"
        "def step():\n"
        "    optimizer.zero_grad()\n"
        "    model(torch.ones(3, 2)).sum().backward()\n"
        "for _ in range(3):\n"
        "    guard(step)\n"
        "    optimizer.step()\n"
    )
    done = command_line(
        ["train.py", "--no-confirm"], cwd=tmp_path, env=dict(os.environ), timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "IDENTICAL" in done.stdout
    assert "3 steps" in done.stdout


def test_the_first_use_draws_nothing_either() -> None:
    program = (
        "import random, torch, repro_audit as ra\n"
        "random.seed(0)\n"
        "expected = random.getstate()\n"
        "guard = ra.Guard(torch.nn.Linear(2, 2), every=1)\n"
        "for _ in range(2):\n"
        "    guard(lambda: torch.ones(2).sum())\n"
        "assert random.getstate() == expected\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
