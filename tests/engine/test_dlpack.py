"""Other libraries' arrays, through DLPack."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from repro_audit import _engine
from repro_audit.engine import compare, fingerprint, multiset_digest, tensor_digest
from repro_audit.errors import UnsupportedTensorError


class Array:
    """An array of a library that is neither torch nor NumPy."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __dlpack__(self, **how: Any) -> Any:
        return self.held.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.held.__dlpack_device__()


@pytest.mark.parametrize(
    "held",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).t(),
        torch.randn(64, dtype=torch.bfloat16)[1:],
        torch.randn(5, dtype=torch.complex64),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.tensor(1.5),
        torch.randn(8).to(torch.float8_e4m3fn),
    ],
    ids=lambda held: f"{held.dtype}{tuple(held.shape)}",
)
def test_the_same_as_the_tensor(each_engine: str, held: torch.Tensor) -> None:
    assert fingerprint(Array(held)) == fingerprint(held)
    assert tensor_digest(Array(held)) == tensor_digest(held)
    assert multiset_digest(Array(held)) == multiset_digest(held)
    assert fingerprint({"a": {"b": Array(held)}})["a.b"] == fingerprint(held)


def test_numpys_through_torch() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert fingerprint(Array(a)) == fingerprint(a)
    assert compare(Array(a), a).differing == 0


def test_read_only_memory() -> None:
    a = np.arange(12.0)
    a.flags.writeable = False
    assert fingerprint(Array(a)) == fingerprint(a)


def test_without_torch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from repro_audit.engine import fingerprint\n"
        "class A:\n"
        "    a = np.arange(6, dtype='f4')\n"
        "    def __dlpack__(self, **how): return self.a.__dlpack__(**how)\n"
        "    def __dlpack_device__(self): return self.a.__dlpack_device__()\n"
        "assert fingerprint(A()) == fingerprint(A.a)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_array_of_a_device_is_torchs_business() -> None:
    program = (
        "import sys\n"
        "from repro_audit.engine import fingerprint\n"
        "from repro_audit.errors import UnsupportedTensorError\n"
        "class A:\n"
        "    def __dlpack__(self, **how): raise BufferError('far away')\n"
        "    def __dlpack_device__(self): return (2, 0)\n"
        "try: fingerprint(A())\n"
        "except UnsupportedTensorError as error: assert 'DLPack' in str(error), error\n"
        "else: raise AssertionError\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_cannot_be_shared() -> None:
    gradient = torch.randn(3, requires_grad=True)
    with pytest.raises(UnsupportedTensorError, match=r"Array that cannot be shared through DLPack"):
        fingerprint(Array(gradient))
    with pytest.raises(TypeError, match="has __dlpack__ is needed, not list"):
        fingerprint([1.0])


class Old(Array):
    """One from before DLPack had versions."""

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.held.__dlpack__()


@pytest.mark.parametrize(
    "held",
    [
        np.arange(24, dtype=np.float32).reshape(4, 6),
        np.arange(24, dtype=np.int16).reshape(4, 6)[::-1, ::-2],
        np.arange(24, dtype=np.complex128).reshape(2, 3, 4).transpose(2, 0, 1),
        np.broadcast_to(np.float64(3), (5, 7)),
        np.ones((3, 0)),
    ],
    ids=lambda held: f"{held.dtype}{held.shape}",
)
def test_numpys_in_one_call(held: np.ndarray) -> None:
    tensor_digest(torch.zeros(1))
    digest = bytes.fromhex(fingerprint(held).digest)
    assert _engine.digest_shared(Array(held)) == digest
    assert _engine.digest_shared(held) == digest
    if held.flags.writeable:
        assert _engine.digest_shared(Old(held)) == digest


def test_what_is_not_shared_in_one_call() -> None:
    class Elsewhere(Array):
        def __dlpack_device__(self) -> Any:
            return (2, 0)

    class Broken(Array):
        def __dlpack__(self, **how: Any) -> Any:
            return "no capsule"

    a = np.ones(3)
    for x in (Elsewhere(a), Broken(a), Array(torch.randn(3, requires_grad=True)), 7, None):
        assert _engine.digest_shared(x) is None
    with pytest.raises(UnsupportedTensorError):
        tensor_digest(Broken(a))
