"""Torch tensors: whatever their strides, views and modes; and those that have no plain memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit import engine
from repro_audit.engine import (
    TAGS,
    choice,
    compare,
    fingerprint,
    multiset_digest,
    row_digests,
    tensor_digest,
    tensor_digests,
)
from repro_audit.errors import EngineError, UnsupportedTensorError

from ..wrapping import Wrapping

DTYPES = {name: getattr(torch, name) for name in TAGS if hasattr(torch, name)}


def plain(t: torch.Tensor) -> bytes:
    """The digest of a tensor's own contiguous bytes."""
    return choice.engine().digest(t.data_ptr(), t.nbytes, TAGS[str(t.dtype).removeprefix("torch.")])


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(each_engine: str, name: str) -> None:
    raw = torch.arange(480, dtype=torch.int64).remainder(97).to(torch.uint8)
    if name == "bool":
        raw = raw % 2
    t = raw.view(DTYPES[name])
    expected = plain(t)
    assert tensor_digest(t) == expected
    assert fingerprint(t).digest == expected.hex()
    assert fingerprint(t).dtype == name
    pair = torch.as_strided(t, (t.numel() // 2,), (2,), 1)
    assert tensor_digest(pair) == plain(pair.clone(memory_format=torch.contiguous_format))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.t(),
        lambda x: x[:, 1:],
        lambda x: x[1:].flatten()[3:],
        lambda x: x[::2, ::3],
        lambda x: x[0].expand(7, -1),
        lambda x: x[:, :1].expand(-1, 5),
        lambda x: x.reshape(1, 4, 5, 6).to(memory_format=torch.channels_last),
        lambda x: x[0, 0],
        lambda x: x[:0],
        lambda x: x.reshape(2, 2, 5, 6).permute(3, 1, 0, 2),
    ],
)
def test_views(each_engine: str, make: Any) -> None:
    x = make(torch.randn(4, 30))
    assert tensor_digest(x) == plain(x.clone(memory_format=torch.contiguous_format))


def test_what_a_conjugate_or_negative_view_shows(each_engine: str) -> None:
    z = torch.randn(3, 4, dtype=torch.complex64)
    assert z.conj().is_conj()
    assert z.conj().imag.is_neg()
    assert tensor_digest(z.conj()) == plain(z.conj().resolve_conj())
    assert tensor_digest(z.conj()) != tensor_digest(z)
    assert tensor_digest(z.conj().imag) == plain(z.conj().imag.resolve_neg().contiguous())
    assert tensor_digest(z.real) == plain(z.real.contiguous())


def test_a_zero_tensor_is_zeros(each_engine: str) -> None:
    zero = torch._efficientzerotensor((5,))
    assert tensor_digest(zero) == tensor_digest(torch.zeros(5))


class Logging(torch.Tensor):
    """A subclass with plain storage that must not notice."""

    seen: list[Any] = []  # noqa: RUF012 - one list for the class is what the test reads

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_subclasses_and_gradients(each_engine: str) -> None:
    x = torch.randn(3, 4)
    expected = plain(x)
    assert tensor_digest(torch.nn.Parameter(x)) == expected
    logging = x.as_subclass(Logging)
    Logging.seen.clear()
    assert tensor_digest(logging) == expected
    assert Logging.seen == []
    leaf = x.clone().requires_grad_()
    y = leaf * 2
    before = (y.grad_fn, y._version, leaf._version)
    assert tensor_digest(y) == plain(y.detach())
    assert tensor_digest(y.t()) == plain(y.detach().t().contiguous())
    assert (y.grad_fn, y._version, leaf._version) == before
    with torch.inference_mode():
        assert tensor_digest(torch.ones(3)) == tensor_digest(torch.ones(3))


def test_inside_a_dispatch_mode_it_dispatches_nothing(each_engine: str) -> None:
    ops: list[str] = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            ops.append(str(func))
            out = func(*args, **(kwargs or {}))
            tensor_digest(out)
            return out

    with Mode():
        torch.ones(3).add(1)
        tensor_digest(torch.ones(2, 3).t())
    assert ops == ["aten.ones.default", "aten.add.Tensor", "aten.ones.default", "aten.t.default"]


def jagged() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


def vmapped() -> None:
    torch.vmap(lambda x: tensor_digest(x) and x)(torch.ones(2, 2))


def freed() -> torch.Tensor:
    t = torch.ones(4)[2:]
    t.untyped_storage().resize_(0)
    return t


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(3)


@pytest.mark.filterwarnings("ignore")  # prototypes and deprecations of torch's own
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse_coo"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse_csr"),
        (lambda: torch.eye(3).to_mkldnn(), "mkldnn"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (jagged, "nested"),
        (lambda: torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.empty(3, device="meta"), "meta"),
        (fake, "fake"),
        (freed, "freed"),
        (lambda: Wrapping(torch.ones(3)), "A Wrapping without storage.*that it wraps"),
    ],
)
def test_unsupported_tensors_say_why(each_engine: str, make: Any, word: str) -> None:
    t = make()
    for call in (tensor_digest, fingerprint, multiset_digest, lambda t: compare(t, t)):
        with pytest.raises(UnsupportedTensorError, match=word):
            call(t)
    with pytest.raises(UnsupportedTensorError, match=f"layer.weight.*{word}"):
        fingerprint({"layer": {"weight": t}})


def test_a_tensor_under_vmap_is_refused(each_engine: str) -> None:
    with pytest.raises(UnsupportedTensorError, match="without storage"):
        vmapped()


def test_refusals_are_type_errors_too() -> None:
    assert issubclass(UnsupportedTensorError, EngineError)
    assert issubclass(UnsupportedTensorError, TypeError)


def test_rows(each_engine: str) -> None:
    x = torch.randn(6, 5, 4)
    assert row_digests(x) == [tensor_digest(row) for row in x]
    assert row_digests(x, -1) == [tensor_digest(x[..., i]) for i in range(4)]
    shuffled = x[torch.tensor([3, 0, 5, 1, 4, 2])]
    assert sorted(row_digests(shuffled)) == sorted(row_digests(x))
    assert row_digests(torch.empty(0, 3)) == []
    with pytest.raises(IndexError, match="no dimension 3"):
        row_digests(x, 3)


def test_multiset_sees_values_not_places(each_engine: str) -> None:
    x = torch.randn(20, 30)
    assert multiset_digest(x.t()) == multiset_digest(x)
    assert multiset_digest(x.flatten()[torch.randperm(600)]) == multiset_digest(x)
    y = x.clone()
    y[3, 3] = math.nextafter(float(y[3, 3]), 9.0)
    y[3, 3] += 1
    assert multiset_digest(y) != multiset_digest(x)
    assert multiset_digest(x) != tensor_digest(x)


def test_many_at_once(each_engine: str) -> None:
    g = torch.Generator().manual_seed(0)
    sizes = [0, 1, 3, 255, 257, 1024, 4095, 70_000, 1]
    if each_engine != "reference":
        sizes += [1 << 20, 3 << 20] * 2
    tensors = [torch.randn(size, generator=g) for size in sizes]
    tensors += [torch.randn(5, 7).t(), torch.randn(3, dtype=torch.complex64).conj()]
    tensors += [torch.nn.Parameter(torch.randn(4, 4)), torch.arange(9), torch.randn(8)[3:]]
    assert tensor_digests(tensors) == [tensor_digest(t) for t in tensors]
    assert tensor_digests(iter(tensors[:3])) == [tensor_digest(t) for t in tensors[:3]]
    assert tensor_digests([]) == []
    with pytest.raises(UnsupportedTensorError, match="meta"):
        tensor_digests([tensors[1], torch.empty(3, device="meta")])


def test_sampled_elements_are_evenly_spread(each_engine: str) -> None:
    t = torch.arange(1000, dtype=torch.int16)
    found = np.frombuffer(engine.sample(t, 7), np.int16)
    assert found.tolist() == [i * 1000 // 7 for i in range(7)]
    for view in (t, t.view(40, 25).t(), t.view(10, 100)[:, ::3], t[3:].expand(4, -1), t[0]):
        for count in (0, 1, 3, view.numel(), view.numel() + 5):
            taken = min(count, view.numel())
            places = [i * view.numel() // taken for i in range(taken)]
            expected = view.reshape(-1)[places].numpy().tobytes()
            assert engine.sample(view, count) == expected
    assert engine.sample(t.numpy()[::-1], 2) == np.array([999, 499], np.int16).tobytes()
    z = torch.randn(6, dtype=torch.complex128).conj()
    assert engine.sample(z, 6) == z.resolve_conj().numpy().tobytes()
    with pytest.raises(ValueError, match="negative"):
        engine.sample(t, -1)
