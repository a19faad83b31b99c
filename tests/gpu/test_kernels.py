"""The kernels on a real device: the same bits as the CPU's engine, for every layout and dtype."""

from __future__ import annotations

import copy

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import TAGS, choice, devices, doctor, kernels

_DTYPES = [name for name in TAGS if hasattr(torch, name) and name != "float4_e2m1fn_x2"]
_COMPARED = [name for name in _DTYPES if not name.startswith("uint") or name == "uint8"]


def _noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> torch.Tensor:
    """Every bit pattern that a dtype can have, on the CPU."""
    torch.manual_seed(seed)
    kind = getattr(torch, dtype)
    if kind is torch.bool:
        return torch.rand(shape) > 0.5
    count = torch.Size(shape).numel() * kind.itemsize
    return torch.randint(0, 256, (count,), dtype=torch.uint8).view(kind).view(shape)


def _layouts(t: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "contiguous": t,
        "transposed": t.transpose(0, 2),
        "permuted": t.permute(2, 0, 1),
        "runs": t[:, :, : t.shape[2] // 2],
        "steps": t[:, ::3, 1::2],
        "offset by one": t.reshape(-1)[1:],
        "offset by three": t.reshape(-1)[3:-5],
        "expanded": t[0, 0].expand(5, 3, -1),
        "scalar": t[0, 0, 0],
        "empty": t[:0],
        "one": t[0, 0, :1],
    }


@pytest.mark.parametrize("dtype", _DTYPES)
def test_digest_and_multiset(dtype: str) -> None:
    host = _noise((16, 48, 40), dtype)
    for (name, here), there in zip(
        _layouts(host).items(), _layouts(host.cuda()).values(), strict=True
    ):
        assert engine.tensor_digest(there) == engine.tensor_digest(here), name
        assert engine.multiset_digest(there) == engine.multiset_digest(here), name
        assert engine.fingerprint(there) == engine.fingerprint(here), name


@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32", "float64", "complex128"])
def test_every_way(dtype: str, way: str) -> None:
    host = _noise((16, 48, 40), dtype)
    for here, there in zip(_layouts(host).values(), _layouts(host.cuda()).values(), strict=True):
        assert engine.tensor_digest(there) == engine.tensor_digest(here)
        assert engine.multiset_digest(there) == engine.multiset_digest(here)
        assert repr(engine.compare(there, there.flip(0))) == repr(
            engine.compare(here, here.flip(0))
        )


@pytest.mark.parametrize("nbytes", [1, 15, 1024, 4097, 1 << 20, (1 << 27) + 3])
def test_lengths(nbytes: int) -> None:
    host = _noise((nbytes,), "uint8")
    assert engine.tensor_digest(host.cuda()) == engine.tensor_digest(host)


def test_views_of_complex_numbers() -> None:
    host = torch.randn(33, 17, dtype=torch.complex64)
    for of in (lambda z: z.conj(), lambda z: z.conj().imag, lambda z: z.mH):
        assert engine.tensor_digest(of(host.cuda())) == engine.tensor_digest(of(host))


def test_many_in_one_launch() -> None:
    shapes = [(), (1,), (0,), (3, 5), (768, 768), (768,), (50_257, 8), (1,), (2047,), (0, 4)]
    here = [_noise(shape, "float32", seed) for seed, shape in enumerate(shapes * 40)]
    here.append(here[4].t())
    there = [t.cuda() for t in here]
    assert engine.tensor_digests(there) == engine.tensor_digests(here)
    assert engine.tensor_digests([*here, *there]) == engine.tensor_digests([*here, *here])


def test_keys_differ() -> None:
    t = torch.arange(1000.0)
    for key in (0, 1, 2**64 - 1):
        assert engine.fingerprint(t.cuda(), key) == engine.fingerprint(t, key)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", _COMPARED)
def test_ulp(dtype: str) -> None:
    a, b = _noise((64, 513), dtype, 1), _noise((64, 513), dtype, 2)
    near = a.clone()
    near.view(torch.uint8).reshape(-1)[::97] ^= dtype != "bool"
    for other in (b, near, a):
        for of in (lambda t: t, lambda t: t.t(), lambda t: t[:, 1:], lambda t: t[:0]):
            assert repr(engine.compare(of(a).cuda(), of(other).cuda())) == repr(
                engine.compare(of(a), of(other))
            )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_ulp_of_denormals(dtype: str, way: str) -> None:
    """CuPy compiles with denormals flushed to zero, whatever it is told."""
    bits = torch.arange(1, 2001, dtype=getattr(torch, f"int{8 * getattr(torch, dtype).itemsize}"))
    a, b = bits.view(getattr(torch, dtype)), (2 * bits).view(getattr(torch, dtype))
    assert repr(engine.compare(a.cuda(), b.cuda())) == repr(engine.compare(a, b))


def test_ulp_of_a_large_tensor() -> None:
    a = torch.randn(1 << 24)
    b = a.clone()
    b[12_345_678] = torch.nextafter(b[12_345_678], torch.tensor(9.0))
    found = engine.compare(a.cuda(), b.cuda())
    assert (found.differing, found.max_ulp, found.first_index) == (1, 1, (12_345_678,))
    assert engine.compare(a.cuda(), a.cuda() * 1.0001) == engine.compare(
        a, (a.cuda() * 1.0001).cpu()
    )


def test_on_the_callers_stream() -> None:
    """A digest asked for on a stream sees what the stream computed before, without a wait."""
    host = torch.randn(1 << 22)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        t = host.cuda(non_blocking=True)
        torch.cuda._sleep(20_000_000)
        t.neg_()
        found = engine.tensor_digest(t)
    assert found == engine.tensor_digest(-host)


def test_a_captured_graph_is_left_alone() -> None:
    from repro_audit.errors import UnsupportedTensorError

    t = torch.randn(1000, device="cuda")
    t.mul_(2)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = t + 1
        with pytest.raises(UnsupportedTensorError, match="graph's capture"):
            engine.tensor_digest(u)
    graph.replay()
    assert engine.tensor_digest(u) == engine.tensor_digest(t.cpu() + 1)


def test_modules() -> None:
    torch.manual_seed(0)
    here = torch.nn.TransformerEncoderLayer(64, 4)
    there = copy.deepcopy(here).cuda()
    assert engine.fingerprint(there) == engine.fingerprint(here)


def test_torch_operations_agree() -> None:
    t = torch.randn(1000, 77, device="cuda").t()
    expected = engine.tensor_digest(t)
    engine.select("torch")
    try:
        assert choice.name_for("cuda") == "torch"
        assert devices.digest(t) == expected
    finally:
        engine.select(None)


def test_a_forced_cpu_engine_copies_to_the_host() -> None:
    t = torch.randn(1000, 77, device="cuda")
    expected = engine.tensor_digest(t)
    engine.select("portable")
    try:
        assert choice.name_for("cuda") == "portable (host copy)"
        assert engine.tensor_digest(t) == expected
    finally:
        engine.select(None)


def test_doctor() -> None:
    found = doctor.diagnose()
    on_cuda = [check for check in found.checks if check.device.startswith("cuda:")]
    there = {name for name in kernels.NAMES if not kernels.problem(name)}
    assert {check.engine for check in on_cuda} == {*there, "torch"}
    assert found.healthy, on_cuda
    assert [check.engine for check in on_cuda if check.used][:1] == ["cuda"]
