"""Recording on a device: the digests are those of the values, nothing waits, nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from repro_audit import engine
from repro_audit.capture import Recorder
from repro_audit.model import Level
from repro_audit.trace import Trace, Writer


def recorded(path: Path, work: Any, level: Level = "ops") -> tuple[Any, Trace, Recorder]:
    writer = Writer(path, run="run", plan={})
    recorder = Recorder(writer, bases=(str(path.parent),), level=level)
    recorder.start()
    try:
        result = work()
    finally:
        recorder.stop()
        writer.close(manifest={}, closing={"events": recorder.events})
    return result, Trace.open(path), recorder


def learn(steps: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 8)).cuda()
    optimizer = torch.optim.AdamW(net.parameters(), foreach=True)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(128, 64, device="cuda")).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return {name: p.detach().clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize("level", ["ops", "modules"])
def test_every_event_has_its_digest(tmp_path: Path, level: Level) -> None:
    plain = learn()
    result, trace, recorder = recorded(tmp_path / "a", learn, level)
    assert all(torch.equal(plain[name], result[name]) for name in plain)
    events = [trace.event(i) for i in range(len(trace))]
    on_cuda = [out for e in events for out in e.outputs if out.spec.device == "cuda:0"]
    inside = [e for e in events if e.key.phase == "optimizer"]
    assert len(on_cuda) > 50
    assert all(out.digest for out in on_cuda if not any(out in e.outputs for e in inside))
    assert not recorder.unobserved
    # The parameters after the last step are what they are.
    last = {
        f"{e.key.module}.{e.outputs[0].name}": e.outputs[0].digest
        for e in events
        if e.kind == "param"
    }
    assert last == {name: engine.tensor_digest(p.cpu()) for name, p in result.items()}


def test_the_same_twice(tmp_path: Path) -> None:
    _, one, _ = recorded(tmp_path / "a", learn)
    _, other, _ = recorded(tmp_path / "b", learn)
    assert len(one) == len(other)
    assert [one.signature(i) for i in range(len(one))] == [
        other.signature(i) for i in range(len(other))
    ]


def test_a_step_waits_for_nothing(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).cuda()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    batch = torch.randn(32, 64, device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()

    def work() -> None:
        step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    _, trace, _ = recorded(tmp_path / "a", work)
    assert len(trace) > 100


def test_a_captured_graph_is_said_to_be_unobserved(tmp_path: Path) -> None:
    def work() -> torch.Tensor:
        x = torch.ones(1000, device="cuda")
        x.mul_(1)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x * 2 + 1
        graph.replay()
        return y + 0

    result, trace, recorder = recorded(tmp_path / "a", work)
    assert result.sum().item() == 3000
    assert any("CUDA graph" in reason for reason in recorder.unobserved)
    last = [trace.event(i) for i in range(len(trace)) if trace.site_name(i)[1] == "aten.add.Tensor"]
    assert last[-1].outputs[0].digest == engine.tensor_digest(result.cpu())


def test_poisoned_memory(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="run", plan={})
    recorder = Recorder(writer, bases=(str(tmp_path),), poison=0x7F)
    recorder.start()
    found = torch.empty(64, dtype=torch.uint8, device="cuda").clone()
    recorder.stop()
    writer.close(manifest={}, closing={"events": recorder.events})
    assert found.tolist() == [0x7F] * 64
