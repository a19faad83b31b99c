"""Plain tensors answered in one call of the engine's, and none that is not plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from repro_audit import _engine, engine
from repro_audit.engine import TAGS, views
from repro_audit.engine.cpu import view_digest
from repro_audit.engine.exchange import exchange

_DTYPES = [name for name in TAGS if hasattr(torch, name) and name != "float4_e2m1fn_x2"]


@pytest.fixture(autouse=True)
def prepared() -> None:
    engine.tensor_digest(torch.zeros(1))


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
@pytest.mark.parametrize("name", _DTYPES)
def test_every_dtype_is_plain(name: str) -> None:
    raw = torch.arange(960, dtype=torch.int64).remainder(251).to(torch.uint8)
    if name == "bool":
        raw = raw % 2
    t = raw.view(getattr(torch, name)).view(3, 4, -1)
    for x in (t, t.transpose(0, 2), t[1:, :, ::2], t[0, 0].expand(9, -1), t[0, 0, 0], t[:0]):
        assert _engine.digest_tensor(x) == view_digest(views.of_tensor(x))
        for count in (0, 1, 7, 960, 2**63):
            view = views.of_tensor(x)
            place = view.address, view.shape, view.strides, view.itemsize
            expected = _engine.sample(*place, min(count, view.numel))
            assert _engine.sample_tensor(x, count) == engine.sample(x, count) == expected


@pytest.mark.parametrize("count", [0, 1, 2**20 + 3, 2**24])
def test_every_length(count: int) -> None:
    t = torch.arange(count + 1, dtype=torch.int32)[1:]
    assert _engine.digest_tensor(t) == view_digest(views.of_tensor(t))
    wide = t.view(-1, 1).expand(-1, 3)
    assert _engine.digest_tensor(wide) == view_digest(views.of_tensor(wide))


def _freed() -> torch.Tensor:
    t = torch.randn(8)
    t.untyped_storage().resize_(0)
    return t


def _shrunk(t: torch.Tensor) -> torch.Tensor:
    t.untyped_storage().resize_(8)
    return t


class Sub(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(3, dtype=torch.complex64).conj(),
        lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
        lambda: torch._neg_view(torch.arange(3)),
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch._efficientzerotensor(3),
        lambda: torch.randn(2).as_subclass(Sub),
        lambda: torch.ones(1).expand(2**31, 2**31),
        _freed,
        lambda: _shrunk(torch.randn(8)),
        lambda: _shrunk(torch.randn(4, 4).t()),
        lambda: np.ones(3),
        lambda: None,
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_not_plain_is_left(make: Callable[[], Any]) -> None:
    x = make()
    assert _engine.digest_tensor(x) is None
    assert _engine.sample_tensor(x, 3) is None
    assert _engine.digest_tensors([torch.ones(2), x])[1] is None


# torch warns of it once a process: which test hears it is a matter of order.
@pytest.mark.filterwarnings("ignore:.*quant")
def test_quantized_is_left() -> None:
    t = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8)
    assert _engine.digest_tensor(t) is None
    assert _engine.sample_tensor(t, 3) is None


def test_a_list() -> None:
    made = [torch.randn(n) for n in (0, 1, 5000, 3_000_000, 7)]
    made.append(torch.randn(4, 4).t())
    found = _engine.digest_tensors(made)
    assert found[:-1] == [engine.tensor_digest(t) for t in made[:-1]]
    assert found[-1] is None


def test_a_table_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="PyCapsule"):
        _engine.exchange(object(), torch.Tensor, torch.nn.Parameter, torch.UntypedStorage)


def test_nothing_is_kept() -> None:
    import sys

    t = torch.randn(5)
    before = sys.getrefcount(t)
    for _ in range(100):
        _engine.digest_tensor(t)
        _engine.digest_tensors([t, t.t()])
    assert sys.getrefcount(t) == before


def test_many_read_while_others_are_asked() -> None:
    made = [torch.randn(1 + (i * 7919) % 30_000) for i in range(800)]
    expected = [engine.tensor_digest(t) for t in made]
    for _ in range(20):
        assert _engine.digest_tensors(made) == expected


def test_a_torch_without_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        def exchange(self, *given: Any) -> None:
            taken.append(given)

    taken: list[Any] = []
    exchange(Module())
    assert [len(given) for given in taken] == [4]
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    exchange(Module())
    assert len(taken) == 1
