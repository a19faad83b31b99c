"""Fingerprints of arrays, modules, optimizers and state dicts."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from repro_audit.engine import TAGS, Fingerprints, fingerprint
from repro_audit.errors import UnsupportedTensorError, UsageError
from repro_audit.model import Fingerprint


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]
)
def test_arrays_and_tensors_agree(each_engine: str, dtype: str) -> None:
    a = np.arange(60).reshape(3, 4, 5).astype(dtype)
    expected = fingerprint(torch.from_numpy(a.copy()))
    assert fingerprint(a) == expected
    assert fingerprint(a.astype(a.dtype.newbyteorder(">"))) == expected
    assert fingerprint(np.asfortranarray(a)) == expected
    backwards = a[::-1, :, ::-1]
    assert fingerprint(backwards) == fingerprint(backwards.copy())
    assert fingerprint(a[0, 0, 0]).shape == ()


def test_a_field_between_others(each_engine: str) -> None:
    records = np.zeros(7, [("flag", "u1"), ("x", "f4")])
    records["x"] = np.arange(7)
    assert fingerprint(records["x"]) == fingerprint(np.arange(7, dtype="f4"))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, [("a", "f4")]),
        np.array([object()]),
        np.array(["text"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(2, np.longdouble),
    ],
)
def test_arrays_without_a_digest(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedTensorError, match="has no digest"):
        fingerprint(array)


def test_other_things_are_type_errors() -> None:
    with pytest.raises(TypeError, match="not list"):
        fingerprint([1.0])


def test_a_fingerprint_is_a_value() -> None:
    f = fingerprint(torch.zeros(2, 3))
    assert f == Fingerprint(f.digest, "float32", (2, 3), 24)
    assert f != fingerprint(torch.zeros(6))
    assert f.digest == fingerprint(torch.zeros(6)).digest
    assert f != fingerprint(torch.zeros(2, 3), key=1)
    assert len(f.digest) == 32


def test_modules_and_optimizers(each_engine: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    f = fingerprint(model)
    assert isinstance(f, Fingerprints)
    assert list(f) == list(model.state_dict())
    assert f == fingerprint(model.state_dict())
    assert f["0.weight"] == fingerprint(model[0].weight)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    assert fingerprint(model) != f
    names = set(fingerprint(optimizer))
    assert {"state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq"} <= names


def test_the_composite_is_that_of_the_specification() -> None:
    state = {"b": torch.zeros(()), "a": {"x\ty": [torch.ones(2, 3), 5]}}
    f = fingerprint(state)
    assert list(f) == ["b", "a.x\ty.0"]
    lines = "a.x\\ty.0\tfloat32\t2,3\t" + f["a.x\ty.0"].digest + "\n"
    lines += "b\tfloat32\t\t" + f["b"].digest + "\n"
    assert f.composite == hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()
    assert f.digest == f.composite
    assert hash(f) == hash(fingerprint(dict(reversed(state.items()))))
    assert f != 5
    assert "2 tensors" in repr(f)


def test_importing_the_engine_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, repro_audit.engine as e; e.name(); e.info();"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tags_cover_what_torch_can_hold() -> None:
    dtypes = {str(x) for x in vars(torch).values() if isinstance(x, torch.dtype)}
    floats = {name.removeprefix("torch.") for name in dtypes if "float" in name}
    assert floats <= set(TAGS)


@pytest.mark.parametrize(
    "state",
    [{"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}}, {1: torch.zeros(2), "1": torch.ones(2)}],
)
def test_two_tensors_of_one_name_are_refused(state: dict[object, object]) -> None:
    with pytest.raises(UsageError, match="name them apart"):
        fingerprint(state)
