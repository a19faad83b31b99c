"""Tensors without memory of their own: digested by what they are made of, or left out silently."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from repro_audit import engine
from repro_audit.errors import UnsupportedTensorError

SPARSE = {
    "coo": torch.Tensor.to_sparse_coo,
    "csr": torch.Tensor.to_sparse_csr,
    "csc": torch.Tensor.to_sparse_csc,
    "bsr": lambda t: t.to_sparse_bsr((2, 2)),
    "bsc": lambda t: t.to_sparse_bsc((2, 2)),
}


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("layout", SPARSE)
def test_a_sparse_tensor_is_its_indices_and_values(record, layout):
    def digest(*changes):
        dense = torch.zeros(4, 6)
        dense[1, 2] = dense[3, 5] = 2.0
        for place, value in changes:
            dense[place] = value
        run = record(lambda: SPARSE[layout](dense).neg())
        (event,) = run.ops("aten.neg")
        assert not run.recorder.unobserved
        return event.digests[0]

    assert digest() is not None
    assert digest() == digest()
    assert len({digest(), digest(((1, 2), 3.0)), digest(((1, 2), 0.0), ((1, 3), 2.0))}) == 3


# torch 2.11 warns even where it is told.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_the_order_of_entries_and_duplicates_are_part_of_a_sparse_tensor(record):
    def digest(indices, values):
        def work():
            made = torch.sparse_coo_tensor(indices, values, (4,), check_invariants=True)
            return made.clone()

        return record(work).ops("aten.clone")[-1].digests[0]

    found = {digest([[0, 1]], [1.0, 2.0]), digest([[1, 0]], [2.0, 1.0])}
    found |= {digest([[0, 1, 1]], [1.0, 1.0, 1.0])}
    assert len(found) == 3
    assert None not in found


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_a_nested_tensor_is_what_it_is_made_of(record, layout):
    def digests(value):
        def work():
            pieces = [torch.ones(2), torch.full((3,), value)]
            return torch.nested.nested_tensor(pieces, layout=layout) * 2

        run = record(work)
        assert not run.recorder.unobserved
        return run.ops("aten.mul")[-1].digests

    assert digests(1.0) == digests(1.0)
    assert digests(1.0) != digests(2.0)
    assert None not in digests(1.0)


def test_inputs_and_parameters_under_functorch_are_what_it_wraps(record):
    net = nn.Sequential(nn.Linear(4, 1))
    parameters = dict(net.named_parameters())
    x = torch.ones(3, 4)

    def work():
        def loss(parameters, x):
            return functional_call(net, parameters, (x,)).sum()

        vmap(grad(loss), in_dims=(None, 0))(parameters, x)

    run = record(work)
    assert not run.recorder.unobserved
    (batch,) = run.ops("inputs:Sequential")
    (plain,) = record(lambda: net(x)).ops("inputs:Sequential")
    assert batch.digests == plain.digests
    assert None not in [d for e in run.seen if e.kind == "param" for d in e.digests]


def test_what_stands_for_a_shape_alone_is_nothing_unobserved(record):
    def work():
        torch.ones(3, device="meta") * 2
        with torch._subclasses.fake_tensor.FakeTensorMode():
            torch.ones(3) * 2

    run = record(work)
    assert [d for e in run.ops("aten.mul") for d in e.digests] == [None, None]
    assert not run.recorder.unobserved


def test_a_subclass_of_the_programs_is_not_asked_and_said_to_be_unobserved(record):
    class Wrapped(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        def __init__(self, inner):
            self.inner = inner

        def __tensor_flatten__(self):
            raise AssertionError

        @staticmethod
        def __tensor_unflatten__(inner, context, size, stride):
            raise AssertionError

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            plain = [a.inner if isinstance(a, cls) else a for a in args]
            return cls(func(*plain, **(kwargs or {})))

    run = record(lambda: Wrapped(torch.ones(2)) * 2)
    assert run.ops("aten.mul")[-1].digests == [None]
    assert sum(run.recorder.unobserved.values()) == 1


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_quantised_tensor_is_said_to_be_unobserved(record):
    from repro_audit.capture import parts

    run = record(lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    assert sum(run.recorder.unobserved.values()) == 1
    assert parts.of(run.result) is None
    with pytest.raises(UnsupportedTensorError, match="int_repr"):
        engine.tensor_digest(run.result)
