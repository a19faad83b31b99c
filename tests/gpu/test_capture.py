"""Recording on a device: the digests are those of the values, nothing waits, nothing is changed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from repro_audit import engine
from repro_audit.capture import Recorder, events
from repro_audit.model import Level
from repro_audit.trace import Trace, Writer


@pytest.fixture(autouse=True)
def in_use() -> None:
    """Generators are recorded once they are in use: before, a process has none to tell of."""
    torch.cuda.init()
    importlib.import_module("numpy.random")


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
    # Both begin with the generators as a training leaves them.
    learn()
    _, one, _ = recorded(tmp_path / "a", learn)
    _, other, _ = recorded(tmp_path / "b", learn)
    assert len(one) == len(other)
    assert [one.signature(i) for i in range(len(one))] == [
        other.signature(i) for i in range(len(other))
    ]


def chosen() -> dict[str, torch.Tensor]:
    """Gradients whose formula torch would choose by whether a mode is on."""
    torch.manual_seed(0)
    x = torch.rand(5000, device="cuda").mul(0.2).add(0.9).requires_grad_()
    y = torch.randn(1000, 101, device="cuda").requires_grad_()
    classes = torch.randint(0, 101, (1000,), device="cuda")
    classes[::7] = -100
    weights = torch.rand(101, device="cuda")
    x.prod().backward()
    nn.functional.cross_entropy(y, classes, weight=weights, label_smoothing=0.1).backward()
    values = torch.linalg.svdvals(y.detach()[:60, :60])
    assert x.grad is not None
    assert y.grad is not None
    return {"x": x.grad, "y": y.grad, "values": values}


def test_what_a_mode_would_change_is_as_without_one(tmp_path: Path) -> None:
    plain = chosen()
    result, trace, _ = recorded(tmp_path / "a", chosen)
    assert all(torch.equal(plain[name], result[name]) for name in plain)
    events = [trace.event(i) for i in range(len(trace))]
    product = next(i for i, e in enumerate(events) if e.key.op == "aten.prod.default")
    quotient = next(e for e in events if e.cause == product and e.key.op.startswith("aten.div."))
    assert quotient.key.phase == "backward"
    assert [out.spec.device for out in quotient.outputs] == ["cuda:0"]


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
    assert any("graph's capture" in reason for reason in recorder.unobserved)
    last = [trace.event(i) for i in range(len(trace)) if trace.site_name(i)[1] == "aten.add.Tensor"]
    assert last[-1].outputs[0].digest == engine.tensor_digest(result.cpu())


def graphed(steps: int) -> torch.Tensor:
    """A training step that is captured whole, optimizer and all, and replayed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 8)).cuda()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, capturable=True, foreach=True)
    batch = torch.randn(32, 64, device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        net(batch).square().mean().backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(steps):
        graph.replay()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("level", ["ops", "modules"])
def test_a_step_that_is_captured_whole(
    tmp_path: Path, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_FLUSH_EVERY", 1)
    expected = graphed(5)
    result, trace, recorder = recorded(tmp_path / "a", lambda: graphed(5), level)
    assert torch.equal(result, expected)
    assert recorder.unseen["cuda-graphs"] == 5
    assert len(trace) > 10


def test_samples_of_a_captured_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_FLUSH_EVERY", 1)
    expected = graphed(2)
    writer = Writer(tmp_path / "a", run="run", plan={})
    recorder = Recorder(writer, bases=(str(tmp_path),), samples=16, budget=1 << 20)
    recorder.start()
    try:
        result = graphed(2)
    finally:
        recorder.stop()
        writer.close(manifest={}, closing={"events": recorder.events})
    assert torch.equal(result, expected)


def test_samples_of_other_streams(tmp_path: Path) -> None:
    def work() -> torch.Tensor:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            x = torch.arange(1000.0, device="cuda")
            torch.cuda._sleep(200_000_000)
            y = x * 3
        x.record_stream(side)
        return y

    writer = Writer(tmp_path / "a", run="run", plan={})
    recorder = Recorder(writer, bases=(str(tmp_path),), samples=16)
    recorder.start()
    try:
        y = work()
        recorder.flush()
    finally:
        recorder.stop()
        writer.close(manifest={}, closing={"events": recorder.events})
    trace = Trace.open(tmp_path / "a")
    (at,) = (i for i in range(len(trace)) if trace.site_name(i)[1] == "aten.mul.Tensor")
    assert trace.samples(at)[0] == engine.sample(y.cpu(), 16)


def test_inference_mode_and_transforms(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="run", plan={})
    recorder = Recorder(writer, bases=(str(tmp_path),))

    def square(x: torch.Tensor) -> torch.Tensor:
        y = (x * x).sum()
        recorder.readings.settle(wait=True)
        return y

    recorder.start()
    try:
        with torch.inference_mode():
            made = torch.ones(10, device="cuda") * 2
        slope = torch.func.grad(square)(torch.ones(10, device="cuda"))
    finally:
        recorder.stop()
        writer.close(manifest={}, closing={"events": recorder.events})
    assert slope.tolist() == made.tolist()
    trace = Trace.open(tmp_path / "a")
    muls = [i for i in range(len(trace)) if trace.site_name(i)[1] == "aten.mul.Tensor"]
    assert trace.event(muls[0]).outputs[0].digest == engine.tensor_digest(made.cpu())
    assert all(trace.event(i).outputs[0].digest for i in muls)


def test_graphed_callables(tmp_path: Path) -> None:
    def work() -> torch.Tensor:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4)).cuda()
        x = torch.randn(8, 32, device="cuda", requires_grad=True)
        called = torch.cuda.make_graphed_callables(net, (x,))
        called(x).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    expected = work()
    result, _, _ = recorded(tmp_path / "a", work)
    assert torch.equal(result, expected)


def test_a_copy_that_nothing_waits_for(tmp_path: Path) -> None:
    def work() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(1 << 22, device="cuda")
        pinned = torch.zeros(1 << 22, pin_memory=True)
        torch.cuda._sleep(200_000_000)
        y = x * 2
        host = y.to("cpu", non_blocking=True)
        pinned.copy_(y, non_blocking=True)
        y.add_(1)
        torch.cuda.synchronize()
        return host, pinned

    (host, pinned), trace, recorder = recorded(tmp_path / "a", work)
    assert torch.equal(host, pinned)
    events = {trace.site_name(i)[1]: trace.event(i) for i in range(len(trace))}
    for op in ("aten._to_copy.default", "aten.copy_.default"):
        (output,) = events[op].outputs
        assert output.spec.device == "cpu"
        assert output.digest == engine.tensor_digest(host)
    assert not recorder.unobserved


def test_a_tensor_that_another_stream_has_yet_to_write(tmp_path: Path) -> None:
    def work() -> torch.Tensor:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(200_000_000)
            x = torch.ones(1 << 20, device="cuda")
        x.record_stream(torch.cuda.current_stream())
        torch.cuda.current_stream().wait_stream(side)
        return x + 1

    _, one, _ = recorded(tmp_path / "a", work)
    _, other, _ = recorded(tmp_path / "b", work)
    assert [one.signature(i) for i in range(len(one))] == [
        other.signature(i) for i in range(len(other))
    ]


def varied() -> None:
    """Deterministic operators whose kernels leave scratch unwritten."""
    torch.manual_seed(0)
    functional = nn.functional

    def fresh() -> None:
        # What is found in memory that is not written differs from run to run.
        for size in (4, 64, 1 << 12, 1 << 16, 1 << 20):
            torch.randint(0, 2**62, (size,), device="cuda")

    for kind in (torch.float16, torch.bfloat16, torch.float32):
        for heads in (17, 64):
            q = torch.randn(2, 4, 33, heads, device="cuda", dtype=kind, requires_grad=True)
            fresh()
            functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    fresh()
    logits = torch.randn(2, 5, 7, 9, device="cuda")
    labels = torch.randint(0, 5, (2, 7, 9), device="cuda")
    functional.cross_entropy(logits, labels, reduction="none")
    fresh()
    nn.LSTM(19, 23, 2).cuda()(torch.randn(5, 3, 19, device="cuda"))
    fresh()
    bag = nn.EmbeddingBag(10, 6, mode="sum", include_last_offset=True).cuda()
    bag(torch.arange(8, device="cuda"), torch.tensor([0, 3, 8], device="cuda"))
    fresh()
    nn.BatchNorm2d(5).cuda()(torch.randn(4, 5, 6, 6, device="cuda"))
    nn.BatchNorm2d(5).cuda().eval()(torch.randn(4, 5, 6, 6, device="cuda"))
    fresh()
    loss = functional.ctc_loss(
        torch.randn(50, 4, 20, device="cuda").log_softmax(2),
        torch.randint(1, 20, (4, 30), device="cuda"),
        torch.full((4,), 50, dtype=torch.long),
        torch.tensor([30, 20, 10, 5]),
    )
    scaler = torch.amp.GradScaler("cuda")
    w = nn.Parameter(torch.ones(8, device="cuda"))
    optimizer = torch.optim.AdamW([w], fused=True)
    scaler.scale((w * loss).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


def test_no_scratch_is_taken_for_a_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, one, _ = recorded(tmp_path / "a", varied)
    torch.cuda.empty_cache()
    torch.full((1 << 24,), 3.0, device="cuda")
    torch.manual_seed(0)
    _, other, _ = recorded(tmp_path / "b", varied)
    assert len(one) == len(other)
    apart = [one.site_name(i) for i in range(len(one)) if one.signature(i) != other.signature(i)]
    assert apart == []


def test_poisoned_memory(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="run", plan={})
    recorder = Recorder(writer, bases=(str(tmp_path),), poison=0x7F)
    recorder.start()
    found = torch.empty(64, dtype=torch.uint8, device="cuda").clone()
    recorder.stop()
    writer.close(manifest={}, closing={"events": recorder.events})
    assert found.tolist() == [0x7F] * 64
