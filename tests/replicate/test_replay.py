"""A call made again and again: how often it varies, and how far from the exact result it is."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch

from repro_audit.capture.calls import Call, rebuilt
from repro_audit.capture.exact import exact
from repro_audit.capture.operators import Operator
from repro_audit.replicate.replay import Kept, NoReplayError, _function, replay


def kept(op: str, *args: Any, **kwargs: Any) -> Kept:
    """A call as it comes back from a trace."""
    function = _function(op)
    operator = Operator(function)
    call = Call(op, args, kwargs, operator.random)
    memory = [bytes(span.bytes().numpy()) for span in call.spans]
    states = [bytes(state.numpy()) for state in call.states]
    make = rebuilt(json.loads(json.dumps(call.json)), memory, states)
    return Kept(op, operator, function, make, "")


def test_an_op_that_does_not_vary() -> None:
    torch.manual_seed(0)
    found = replay(
        kept("aten.mm.default", torch.randn(33, 65), torch.randn(65, 9)), times=6, seconds=60
    )
    assert (found["calls"], found["counts"]) == (6, [6])
    assert (found["pairs"], found["differing_pairs"]) == (3, 0)
    assert found["between"] is None
    # A dot product of 65 terms in float32 rounds.
    assert 0 < found["exact"][0]["max_ulp"] < 10_000


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to race")
def test_an_op_that_varies() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        index = torch.randint(0, 100, (200_000,))
        call = kept(
            "aten.index_put.default", torch.zeros(100, 8), [index], torch.randn(200_000, 8), True
        )
        found = replay(call, times=20, seconds=60)
    finally:
        torch.set_num_threads(threads)
    assert len(found["counts"]) > 1
    assert sum(found["counts"]) == found["calls"] == 20
    assert 0 < found["differing_pairs"] <= found["pairs"] == 10
    assert found["between"]["differing"] > 0
    assert len(found["exact"]) > 1


def test_what_it_draws_it_draws_each_time() -> None:
    torch.manual_seed(7)
    found = replay(
        kept("aten.native_dropout.default", torch.randn(1000), 0.3, True), times=5, seconds=60
    )
    assert found["counts"] == [5]
    # The same elements are dropped in float64; what is left is scaled, and rounds.
    assert found["exact"][0]["max_ulp"] <= 1
    assert found["exact"][0]["unordered"] == 0


def test_an_op_in_place_begins_anew_each_time() -> None:
    found = replay(kept("aten.add_.Tensor", torch.ones(3), torch.ones(3)), times=4, seconds=60)
    assert found["counts"] == [4]
    assert found["exact"][0]["differing"] == 0


def test_time_is_limited() -> None:
    found = replay(kept("aten.sin.default", torch.randn(4)), times=10**9, seconds=0.2)
    assert 0 < found["calls"] < 10**8


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("aten.sin.default", torch.randn(4).double()), "nothing wider"),
        (("aten.rand.default", [4]), "draws random numbers"),
        (("aten.argmax.default", torch.randn(4)), "nothing wider"),
    ],
)
def test_no_exact_result(call: tuple[Any, ...], reason: str) -> None:
    again = kept(*call)
    reference, why = exact(again, 0, again.outputs())
    assert reference is None
    assert reason in why


def test_the_exact_result_of_reduced_precision() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(8, 300).bfloat16(), torch.randn(300, 8).bfloat16()
    again = kept("aten.mm.default", x, w)
    reference, why = exact(again, 0, again.outputs())
    assert why == ""
    assert reference is not None
    assert torch.equal(reference, x.double() @ w.double())


def test_an_op_of_the_programs_own() -> None:
    with pytest.raises(NoReplayError, match="no operator of torch's own"):
        _function("mine.op.default")
