"""Calls that are kept and made again: arguments, strides, aliasing, addresses, generators."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from repro_audit.capture.calls import Call, complete, rebuilt
from repro_audit.model import SiteKey


def again(op: str, *args: Any, random: bool = False, **kwargs: Any) -> Callable[[], Any]:
    """Keep a call, and give what makes its arguments again from nothing but what was kept."""
    call = Call(op, args, kwargs, random)
    described = json.loads(json.dumps(call.json))
    memory = [bytes(span.bytes().numpy()) for span in call.spans]
    states = [bytes(state.numpy()) for state in call.states]
    assert call.nbytes == sum(map(len, memory)) + sum(map(len, states))
    return rebuilt(described, memory, states)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """True if shape, dtype and bits agree."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    flat = [t.resolve_conj().resolve_neg().contiguous().reshape(-1) for t in (one, other)]
    return torch.equal(*(t.view(torch.uint8) for t in flat))


BASE = torch.arange(240.0).reshape(10, 24)
CPLX = torch.complex(torch.randn(4, 6), torch.randn(4, 6))


TENSORS = {
    "plain": BASE,
    "transposed": BASE.t(),
    "strided": BASE[2:9:3, 1::5],
    "expanded": BASE[:, 3:4].expand(10, 7),
    "offset": BASE.view(-1)[7:],
    "scalar": BASE.view(-1)[:1].view(()),
    "empty": BASE[:0],
    "misaligned": torch.arange(64, dtype=torch.uint8)[3:].view(61),
    "bfloat16": torch.randn(3, 5).bfloat16(),
    "float8": torch.randn(8).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False]),
    "conjugate": CPLX.conj(),
    "conjugate-strided": CPLX.t().conj()[1:],
    "negative": CPLX.conj().imag,
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_as_it_was(tensor: torch.Tensor) -> None:
    (found,), _ = again("aten.neg.default", tensor)()
    assert same_bits(found, tensor)
    assert found.stride() == tensor.stride()
    assert (found.is_conj(), found.is_neg()) == (tensor.is_conj(), tensor.is_neg())
    if tensor.numel():
        assert found.data_ptr() % 64 == tensor.data_ptr() % 64


def test_memory_is_shared_as_it_was_and_fresh_each_time() -> None:
    base = torch.zeros(100)
    make = again("aten.copy_.default", base[10:20], base[15:25], BASE)
    (one, other, apart), _ = make()
    one.fill_(3)
    assert other[:5].eq(3).all()
    assert other[5:].eq(0).all()
    assert same_bits(apart, BASE)
    (fresh, _, _), _ = make()
    assert fresh.eq(0).all()


def test_views_of_several_dtypes_on_one_memory() -> None:
    base = torch.arange(16, dtype=torch.int32)
    (whole, part), _ = again("aten.copy_.default", base, base[1:3].view(torch.int16))()
    part.fill_(-1)
    assert whole.tolist() == [0, -1, -1, *range(3, 16)]


def test_other_arguments() -> None:
    values = [None, True, -3, "mean", [1, 2], float("inf"), 0.1, 1 - 2j, torch.float16]
    named = {"memory_format": torch.channels_last, "device": torch.device("cpu")}
    args, kwargs = again("aten.x.default", *values, **named)()
    assert args == values
    assert kwargs == named


@pytest.mark.parametrize("own", [True, False])
def test_what_is_drawn_is_drawn_again(own: bool) -> None:
    keywords = {"generator": torch.Generator().manual_seed(5)} if own else {}
    torch.manual_seed(3)
    make = again("aten.rand.default", [4], random=True, **keywords)
    drawn = torch.ops.aten.rand.default([4])
    if own:
        drawn = torch.ops.aten.rand.generator([4], **keywords)
    for _ in range(2):
        args, kwargs = make()
        overload = torch.ops.aten.rand.generator if own else torch.ops.aten.rand.default
        assert torch.equal(overload(*args, **kwargs), drawn)


def test_what_cannot_be_kept_is_said() -> None:
    call = Call("aten.mm.default", (torch.eye(2).to_sparse(), object()), {}, False)
    assert not complete(call.json)
    with pytest.raises(ValueError, match="is not kept"):
        rebuilt(call.json, [], [])()
    assert complete(Call("aten.mm.default", (BASE, [BASE, None]), {}, False).json)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged, None])
def test_a_tensor_without_memory_of_one_shape_is_not_kept(layout: torch.layout | None) -> None:
    tensor = torch._efficientzerotensor(3)
    sizes: list[Any] = [3]
    if layout is not None:
        tensor = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=layout)
    if layout is torch.jagged:
        sizes = [tensor.shape[1]]
    assert not complete(json.loads(json.dumps(Call("aten.neg.default", (tensor,), {}, False).json)))
    described = Call("aten.view.default", (BASE, sizes), {}, False).json
    assert complete(json.loads(json.dumps(described))) is (layout is not torch.jagged)


def test_a_call_is_kept_as_it_was_before_the_op_wrote(record: Any) -> None:
    """`record` names the event first, then keeps it."""

    def program() -> torch.Tensor:
        x = torch.ones(5)
        x[1:3].add_(torch.full((2,), 2.0))
        return x

    seen = next(event for event in record(program).seen if event.op.startswith("aten.add_"))
    kept = record(program, capture=(SiteKey(0, "forward", "", seen.op, 0),)).sink
    call = kept.calls[seen.index]
    memory = [kept.payloads[seen.index, 0, n] for n in range(len(call["memory"]))]
    (mine, other), _ = rebuilt(call, memory, [])()
    assert (mine.tolist(), other.tolist()) == ([1, 1], [2, 2])
