"""`_cuda` as Python calls it, on an emulation of CUDA whose devices have the host's memory.

The module is built with the C++ tests: `REPRO_AUDIT_EMULATED` names its directory, and
`REPRO_AUDIT_REQUIRE=emulation` turns the skip without it into a failure.
"""

from __future__ import annotations

import os
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import TAGS, choice, cuda, cuda_ring, ring, torch_ops
from repro_audit.engine.exchange import exchange
from repro_audit.errors import UnsupportedTensorError

_DTYPES = ("bool", "uint8", "float8_e5m2", "int16", "bfloat16", "float32", "int64", "complex128")
_COMPARED = ("int8", "float8_e4m3fn", "float16", "bfloat16", "int32", "float32", "float64")


@pytest.fixture(scope="module")
def module() -> Any:
    found = sorted(Path(os.environ.get("REPRO_AUDIT_EMULATED", "none")).glob("_cuda*.so"))
    if not found:
        reason = "REPRO_AUDIT_EMULATED names no directory with a module"
        if "emulation" in os.environ.get("REPRO_AUDIT_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    loader = ExtensionFileLoader("_cuda", str(found[0]))
    spec = spec_from_loader("_cuda", loader)
    assert spec is not None
    made = module_from_spec(spec)
    loader.exec_module(made)
    exchange(made)
    return made


@pytest.fixture(autouse=True)
def emulated(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's functions take the host's tensors."""
    monkeypatch.setattr(choice, "kernels", lambda device_type="cuda": module)
    monkeypatch.setattr(cuda, "queue", lambda device: (0, 0))


def noise(dtype: str, seed: int = 0) -> torch.Tensor:
    """Every bit pattern that a dtype can have."""
    torch.manual_seed(seed)
    kind = getattr(torch, dtype)
    if kind is torch.bool:
        return torch.rand(7, 30, 20) > 0.5
    return (
        torch.randint(0, 256, (7 * 30 * 20 * kind.itemsize,), dtype=torch.uint8)
        .view(kind)
        .view(7, 30, 20)
    )


def layouts(t: torch.Tensor) -> list[torch.Tensor]:
    return [
        t,
        t.transpose(0, 2),
        t[:, :, :11],
        t[:, ::3, 1::2],
        t.reshape(-1)[1:],
        t[0, 0].expand(5, 3, -1),
        t[0, 0, 0],
        t[:0],
    ]


@pytest.mark.parametrize("key", [0, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 3, 1024, 2**40 + 5])
def test_bytes_somewhere_in_their_stream(offset: int, key: int) -> None:
    for data in (noise("uint8").view(-1), noise("uint8").view(-1)[1:], torch.empty(0).byte()):
        assert cuda.stream_lanes(data, offset, key) == torch_ops.stream_lanes(data, offset, key)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_tensors(dtype: str) -> None:
    tensors = layouts(noise(dtype))
    native = choice.engine()
    for t in tensors:
        place = (t.data_ptr(), tuple(t.shape), t.stride(), t.itemsize)
        tag = TAGS[dtype]
        lanes = cuda.tensor_lanes(t, 9)
        assert native.finalize(*lanes, t.nbytes, tag) == native.digest_strided(*place, tag, 9)
        assert cuda.multiset_lanes(t, 9) == native.multiset(*place, 9)
        for count in sorted({min(n, t.numel()) for n in (1, 5, t.numel())} - {0}):
            assert bytes(cuda.gathered(t, count).numpy()) == native.sample(*place, count)
    flat = [t.contiguous() for t in tensors] * 200
    native_lanes = [native.lanes(t.data_ptr(), t.nbytes, 0, 9) for t in flat]
    assert cuda.table_lanes(flat, 9) == native_lanes
    assert len(flat) > 1360


@pytest.mark.parametrize("dtype", _COMPARED)
def test_divergence(dtype: str) -> None:
    a, b = noise(dtype, 1), noise(dtype, 2)
    near = a.clone()
    near.view(torch.uint8).view(-1)[::97] ^= 1
    for other in (b, near, a):
        for x, y in zip(layouts(a), layouts(other), strict=True):
            host = choice.engine().ulp(
                x.data_ptr(), x.stride(), y.data_ptr(), y.stride(), tuple(x.shape), TAGS[dtype]
            )
            assert repr(cuda.ulp(x, y, dtype)) == repr(host)


def test_a_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [
        (torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)) for _ in "ab"
    ]

    def copy(half: int) -> None:
        table, host = tables[half]
        host.copy_(table)
        table.zero_()

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    parts = cuda_ring._Writer(0), ring.Here(copy), tables
    monkeypatch.setattr(ring, "_parts", lambda *_: parts)
    found: ring.Ring[int] = ring.Ring(torch.device("cpu"), slots=32)
    tensors = [t for dtype in _DTYPES for t in layouts(noise(dtype))]
    tensors += [torch.randn(5, 3, dtype=torch.complex64).mH.imag, torch.nn.Parameter(torch.ones(3))]
    taken = {}
    for token, t in enumerate(tensors):
        found.add(t, token)
    taken.update(found.ready(wait=True))
    problems = found.add_all([*tensors, torch.eye(3).to_sparse()], range(1000, 1001 + len(tensors)))
    assert [type(problem) for problem in problems[-1:]] == [UnsupportedTensorError]
    assert problems[:-1] == [None] * len(tensors)
    taken.update(found.ready(wait=True))
    digests = [engine.tensor_digest(t) for t in tensors]
    assert [taken[token] for token in range(len(tensors))] == digests
    assert [taken[1000 + token] for token in range(len(tensors))] == digests


def test_what_is_refused(module: Any) -> None:
    t, out = torch.ones(3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        module.add_range(t.data_ptr(), 12, 0, 0, out.data_ptr(), 1, 0)
    with pytest.raises(ValueError, match="no dtype with a distance"):
        module.compare(TAGS["complex64"], 0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="more than there are"):
        module.sample(t.data_ptr(), (3,), (1,), 4, 4, out.data_ptr(), 0, 0)
    assert out.tolist() == [0, 0]
    assert module.add_tensor(torch.eye(3).to_sparse(), out.data_ptr(), 0, 0) is None
    module.load(0)
