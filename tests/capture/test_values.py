"""What recordings keep of tensors: samples, and the whole within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro_audit import engine
from repro_audit.capture import Recorder
from repro_audit.capture.operators import Operator
from repro_audit.capture.values import reduction_length

from .conftest import MemorySink

aten = torch.ops.aten


@dataclass
class KeepingSink(MemorySink):
    samples: list[Any] = field(default_factory=list)
    reductions: list[Any] = field(default_factory=list)
    measured: list[Any] = field(default_factory=list)
    unkept: list[tuple[int, int]] = field(default_factory=list)

    def unkeep(self, event: int, position: int) -> None:
        del self.payloads[event, 1, position]
        self.unkept.append((event, position))

    def kept_bytes(self) -> int:
        return sum(map(len, self.payloads.values()))

    def kept_ops(self) -> list[str]:
        ops = {event.index: event.op for event in self.seen()}
        return [ops[event] for event, _, _ in sorted(self.payloads)]


def recorded(function: Any, **options: Any) -> KeepingSink:
    sink = KeepingSink()
    recorder = Recorder(sink, bases=(), **options)
    recorder.start()
    try:
        function()
    finally:
        recorder.stop()
    return sink


def test_samples_are_those_of_the_engine() -> None:
    x = torch.randn(40, 30)
    made = []
    sink = recorded(lambda: made.append(x.t().exp()), samples=16)
    taken = {(event, position): data for event, position, data in sink.samples}
    (event,) = [e for e in sink.seen() if e.op == "aten.exp.default"]
    assert taken[event.index, 0] == engine.sample(made[0], 16)
    assert len(taken[event.index, 0]) == 64
    assert sink.payloads == {}


def test_of_a_device_elements_are_gathered_there_and_fetched_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(40, 30)
    sink = KeepingSink()
    recorder = Recorder(sink, bases=(), samples=16)
    # The host plays the device: what is told apart is when elements come back.
    monkeypatch.setattr(engine, "stays", lambda tensor: True)
    assert recorder.values is not None
    recorder.values.take(7, 0, x, step=0, phase=3, starting=False)
    assert sink.samples == []
    recorder.values.settle()
    monkeypatch.undo()
    assert sink.samples == [(7, 0, engine.sample(x, 16))]
    recorder.values.settle()
    assert len(sink.samples) == 1


def test_zeros_without_memory_are_kept_and_what_wraps_others_is_not() -> None:
    def run() -> None:
        zeros = torch._efficientzerotensor(3)
        zeros.mul(2)
        torch.vmap(lambda row: row.exp())(torch.randn(2, 3))

    sink = recorded(run, samples=4, budget=10_000)
    ops = {event.index: event.op for event in sink.seen()}
    kept = {ops[event]: data for (event, _, _), data in sink.payloads.items()}
    assert kept["aten._efficientzerotensor.default"] == bytes(12)
    assert {ops[event] for event, _, _ in sink.samples} == set(kept)


def test_whole_tensors_within_the_budget() -> None:
    x = torch.ones(100)
    sink = recorded(lambda: x.exp().sin().cos(), samples=4, budget=1000)
    assert sink.kept_ops() == ["aten.exp.default", "aten.sin.default"]
    assert sink.payloads[min(sink.payloads)] == x.exp().numpy().tobytes()


def test_what_a_run_starts_from_makes_room_for_itself() -> None:
    x = torch.ones(100)
    sink = recorded(lambda: (x.exp().sin(), torch.rand(100)), samples=4, budget=1000)
    assert sink.kept_ops() == ["aten.exp.default", "aten.rand.default"]
    assert len(sink.unkept) == 1
    assert sink.kept_bytes() <= 1000


def test_what_is_larger_than_the_budget_lets_others_be() -> None:
    x = torch.ones(100)
    sink = recorded(lambda: (x.exp(), torch.rand(1000), x.sin()), samples=4, budget=1000)
    assert sink.kept_ops() == ["aten.exp.default", "aten.sin.default"]


def test_weights_before_the_first_forward_go_first() -> None:
    net = nn.Linear(5, 5)
    x = torch.ones(2, 5)
    sink = recorded(lambda: net(x), samples=4, budget=10_000)
    assert {"param:weight", "param:bias", "aten.addmm.default"} <= set(sink.kept_ops())
    small = recorded(lambda: net(x), samples=4, budget=170)
    assert "aten.addmm.default" not in small.kept_ops()


def test_no_memory_no_sample() -> None:
    def run() -> None:
        torch.ones(3, 3).to_sparse()
        torch.empty(0).exp()
        torch.ones(2, device="meta").exp()

    sink = recorded(run, samples=4)
    ops = {event.index: event.op for event in sink.seen()}
    assert {ops[event] for event, _, _ in sink.samples} <= {
        "aten.ones.default",
        "aten._to_sparse.default",
        "aten.fill_.Scalar",
        "aten.nonzero.default",
        "aten._sparse_coo_tensor_with_dims_and_tensors.default",
        "aten._coalesced_.default",
    }


@pytest.mark.parametrize(
    ("function", "length"),
    [
        (lambda: aten.mm.default(torch.ones(3, 7), torch.ones(7, 2)), 7),
        (lambda: aten.addmm.default(torch.ones(2), torch.ones(3, 7), torch.ones(7, 2)), 7),
        (lambda: aten.bmm.default(torch.ones(4, 3, 7), torch.ones(4, 7, 2)), 7),
        (lambda: F.conv2d(torch.ones(1, 3, 9, 9), torch.ones(8, 3, 5, 5)), 75),
        (lambda: F.layer_norm(torch.ones(4, 6, 5), (6, 5)), 30),
        (lambda: F.group_norm(torch.ones(2, 6, 5), 3), 10),
        (lambda: F.batch_norm(torch.ones(4, 3, 5), None, None, training=True), 20),
        (lambda: torch.ones(4, 9).softmax(1), 9),
        (lambda: torch.ones(4, 9).sum(), 36),
        (lambda: torch.ones(4, 9).mean(0), 4),
        (lambda: torch.ones(4, 9).cumsum(1), 9),
        (lambda: torch.ones(4, 9).exp(), 1),
        (lambda: torch.ones(4, 9) + torch.ones(9), 1),
        (lambda: F.scaled_dot_product_attention(*[torch.ones(1, 2, 16, 4)] * 3), 16),
        (lambda: F.nll_loss(torch.ones(8, 3), torch.ones(8, dtype=torch.int64)), 8),
    ],
)
def test_how_many_numbers_go_into_a_result(function: Any, length: int) -> None:
    found: list[int] = []

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            operator = Operator(func)
            if not (operator.view or operator.empty or operator.name.endswith("fill_.Scalar")):
                found.append(reduction_length(operator.name, args, result))
            return result

    with Watching():
        function()
    assert found[-1] == length


def test_of_a_norm_that_overwrites_its_statistics() -> None:
    net = nn.BatchNorm1d(3)
    sink = recorded(lambda: net(torch.randn(5, 3)), samples=4)
    sites = {number: op for (_, op), number in sink.names["s"].items()}
    specs = {number: shape for (_, shape, _), number in sink.names["p"].items()}
    found = {sites[site]: (specs[spec], length) for site, spec, length in sink.reductions}
    # By the shape of its first output, as the event has it.
    assert found["aten.native_batch_norm.default"] == ((3,), 5)


def test_of_a_convolution_backwards_what_its_weight_adds_up() -> None:
    weight = torch.ones(8, 3, 5, 5, requires_grad=True)
    sink = recorded(lambda: F.conv2d(torch.ones(2, 3, 9, 9), weight).sum().backward(), samples=4)
    sites = {number: op for (_, op), number in sink.names["s"].items()}
    lengths = {sites[site]: length for site, _, length in sink.reductions}
    assert lengths["aten.convolution.default"] == 75
    assert lengths["aten.convolution_backward.default"] == max(2 * 25, 8 * 25)
