"""A run that is given another's values: what it then computes from, and what it errs by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from repro_audit import engine
from repro_audit.capture import Recorder
from repro_audit.capture.given import Given, _cut, put
from repro_audit.capture.rounded import coarser, rounds
from repro_audit.model import SiteKey
from repro_audit.model.codes import CONDITION, HERE, OWN, THERE

from .test_values import KeepingSink


class Values:
    """A recording that has of some ops, by (module, op, call index), a value for output 0."""

    def __init__(self, values: dict[tuple[str, str, int], torch.Tensor]) -> None:
        self.values = values
        self.asked: list[SiteKey] = []

    def value(self, key: SiteKey, position: int) -> torch.Tensor | None:
        self.asked.append(key)
        found = self.values.get((key.module, key.op, key.call_index))
        return found if position == 0 else None


def run(function: Callable[[], Any], **sources: Values) -> tuple[KeepingSink, Given, Any]:
    sink = KeepingSink()
    given = Given(sink, sources)
    recorder = Recorder(sink, bases=(), samples=4, given=given)
    recorder.start()
    try:
        result = function()
    finally:
        recorder.stop()
    return sink, given, result


def figures(sink: KeepingSink, op: str) -> dict[int, dict[str, Any]]:
    ops = {event.index: event.op for event in sink.seen()}
    return {
        against: json.loads(found) for event, _, against, found in sink.measured if ops[event] == op
    }


def test_draws_are_the_recorded_ones() -> None:
    wanted = torch.full((3,), 0.25)
    sink, given, result = run(
        lambda: torch.rand(3), draws=Values({("", "aten.rand.default", 0): wanted})
    )
    assert result.tolist() == wanted.tolist()
    assert given.taken == {"draws": 1}
    (event,) = [event for event in sink.seen() if event.op == "aten.rand.default"]
    # What is recorded is what the program goes on with.
    assert event.digests == [engine.tensor_digest(wanted)]


@pytest.mark.parametrize("batch", [None, 2])
def test_rows_of_a_larger_batch_lie_outside_or_inside(batch: int | None) -> None:
    whole = torch.arange(8 * 3 * 5).reshape(8, 3, 5)  # batch, positions, width

    def laid(x: torch.Tensor) -> torch.Tensor:
        return (x if batch is None else x.transpose(0, 1)).reshape(-1, 5)

    assert torch.equal(_cut(laid(whole), laid(whole[:2]), batch), laid(whole[:2]))
    # A dimension of its own is the same in either order.
    assert torch.equal(_cut(whole, whole[:2], batch), whole[:2])
    turned = whole.permute(1, 2, 0)
    assert torch.equal(_cut(turned, turned[..., :2], batch), turned[..., :2])


def test_what_the_recording_has_not_stays_and_is_counted() -> None:
    torch.manual_seed(0)
    plain = torch.rand(3)
    torch.manual_seed(0)
    other = Values({("", "aten.rand.default", 0): torch.zeros(4)})
    _, given, result = run(lambda: torch.rand(3), draws=other)
    assert result.tolist() == plain.tolist()
    assert given.missing == {"draws": 1}


def test_weights_before_the_first_forward_and_not_after_an_update() -> None:
    net = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def train() -> torch.Tensor:
        out = net(torch.ones(1, 2))
        out.sum().backward()
        optimizer.step()
        return out

    _, given, out = run(train, weights=Values({("Linear", "param:weight", 0): wanted}))
    assert out.tolist() == [[3.0, 7.0]]
    assert net.weight.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert given.taken == {"weights": 1}


def test_inputs_of_the_model() -> None:
    net = nn.Identity()
    wanted = torch.tensor([5.0])
    _, taken, out = run(
        lambda: net(torch.zeros(1)), inputs=Values({("", "inputs:Identity", 0): wanted})
    )
    assert out.tolist() == [5.0]
    assert taken.taken == {"inputs": 1}


def test_what_follows_is_computed_from_the_recorded_values_forwards_and_backwards() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    there = torch.tensor([3.0, 5.0])

    def function() -> torch.Tensor:
        y = x.exp()
        # Its backward multiplies by what the forward gave.
        (y * y).sum().backward()
        return y

    sink, _, y = run(function, all=Values({("", "aten.exp.default", 0): there}))
    assert y.tolist() == [3.0, 5.0]
    assert x.grad is not None
    assert x.grad.tolist() == [2 * 3.0 * 3.0, 2 * 5.0 * 5.0]
    found = figures(sink, "aten.exp.default")
    assert found[OWN]["differing"] == 2
    assert found[HERE]["rms"] < 1e-7 < found[THERE]["rms"]


def test_a_single_element_of_a_diagonal() -> None:
    x = torch.zeros(1, 2)
    there = torch.tensor([2.0])
    sink, _, _ = run(
        lambda: x.diagonal().fill_(1), all=Values({("", "aten.fill_.Scalar", 0): there})
    )
    assert x.tolist() == [[2.0, 0.0]]
    assert figures(sink, "aten.fill_.Scalar")[OWN]["differing"] == 1


def test_what_agrees_is_not_computed_once_more() -> None:
    x = torch.tensor([1.0, 2.0])
    sink, given, _ = run(x.exp, all=Values({("", "aten.exp.default", 0): x.exp()}))
    assert list(figures(sink, "aten.exp.default")) == [OWN]
    assert given.taken["all"] == 1


def test_an_op_that_overwrites_its_argument() -> None:
    x = torch.tensor([1.0, 2.0])
    right = torch.tensor([1.0, 2.0]).double().exp()
    sink, _, out = run(x.exp_, all=Values({("", "aten.exp_.default", 0): torch.ones(2)}))
    assert out.tolist() == [1.0, 1.0]
    found = figures(sink, "aten.exp_.default")
    assert found[HERE]["rms"] < 1e-7
    assert found[THERE]["rms"] == pytest.approx(
        ((right - 1).norm() / right.norm()).item(), rel=1e-6
    )


def test_an_op_that_overwrites_one_argument_and_returns_another() -> None:
    net = nn.BatchNorm1d(2)
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    there = torch.zeros(2, 2)
    sink = KeepingSink()

    class Output(Values):
        def value(self, key: SiteKey, position: int) -> torch.Tensor | None:
            if "batch_norm" not in key.op:
                return None
            return (
                [net.running_mean + 1, net.running_var, there][position] if position < 3 else None
            )

    sink, _, out = run(lambda: net(x), all=Output({}))
    assert out.tolist() == there.tolist()
    ops = {event.index: event.op for event in sink.seen()}
    found = {
        (position, against)
        for event, position, against, _ in sink.measured
        if "batch_norm" in ops[event]
    }
    # The result of a norm is compared with float64 although the running mean is overwritten.
    assert {(2, OWN), (2, HERE), (2, THERE)} <= found


@pytest.mark.parametrize(("last", "least"), [(1.0, 0.0), (-2.0 + 2**-10, 500.0)])
def test_how_a_change_of_the_arguments_grows_where_terms_cancel(last: float, least: float) -> None:
    a = torch.tensor([[1.0, 1.0, last]])
    b = torch.ones(3, 1)
    there = torch.zeros(1, 1)
    before = torch.get_rng_state()
    sink, _, _ = run(lambda: a.mm(b), all=Values({("", "aten.mm.default", 0): there}))
    factor = figures(sink, "aten.mm.default").get(CONDITION, {"factor": 1.0})["factor"]
    assert least <= factor
    assert factor < 2 or least
    assert torch.equal(torch.get_rng_state(), before)


def test_autograd_sees_nothing() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    version = y._version
    assert put(torch.zeros(3), y)
    assert (y._version, y.tolist()) == (version, [0.0] * 3)
    y.square().sum().backward()


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(3), torch.zeros(1).expand(2), torch.empty(2, device="meta")],
    ids=["another shape", "shared memory", "no memory"],
)
def test_what_cannot_be_given(tensor: torch.Tensor) -> None:
    assert not put(torch.ones(2), tensor)


def test_what_was_rounded_on_its_way_into_an_op() -> None:
    """A recording in float32, this run in bfloat16 but for the last op: the casts are its own."""
    torch.manual_seed(0)
    x = torch.randn(64)
    right = {
        ("", "aten.mul.Tensor", 0): x * 3,
        ("", "aten.mul.Tensor", 1): x * 3 * 5,
        ("", "aten.mul.Tensor", 2): x * 3 * 5 * 7,
        ("", "aten.exp.default", 0): x.exp() * (1 + 2**-20),
    }

    def work() -> torch.Tensor:
        x.exp()
        y = x.bfloat16() * 3  # given as bfloat16, and so rounded
        z = y.float() * 5
        return z * 7  # of a float32 that is as recorded

    sink, _, _ = run(work, all=Values(right))
    places = {event.index: (event.op, event.index) for event in sink.seen()}
    conditions = {
        places[event]: json.loads(found)
        for event, _, against, found in sink.measured
        if against == CONDITION
    }
    dtypes = [conditions.get(place, {}).get("dtype") for place in sorted(places.values())]
    by_op = dict(zip(sorted(places.values()), dtypes, strict=True))
    muls = [by_op[place] for place in sorted(by_op) if place[0] == "aten.mul.Tensor"]
    assert muls == [None, "bfloat16", None]
    assert [by_op[place] for place in by_op if place[0] == "aten.exp.default"] == [None]


def test_a_recording_in_a_coarser_dtype() -> None:
    x = torch.randn(64)
    there = {("", "aten.mul.Tensor", 0): (x.bfloat16() * 3)}
    sink, _, _ = run(lambda: x * 3, all=Values(there))
    found = figures(sink, "aten.mul.Tensor")
    assert found[CONDITION]["dtype"] == "bfloat16"


def test_what_rounds_more() -> None:
    assert coarser(torch.bfloat16, torch.float32) is torch.bfloat16
    assert coarser(torch.float16, torch.bfloat16) is torch.bfloat16
    assert coarser(None, torch.float64) is torch.float64
    assert coarser(torch.int64, torch.float64) is torch.float64
    assert coarser(torch.float4_e2m1fn_x2, torch.float32) is torch.float32
    assert not any(rounds(torch.float32, to) for to in (torch.float32, torch.float64, torch.int8))
