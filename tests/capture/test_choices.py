"""Settings that a kernel is chosen by: all are read, and set again as they were."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator

import pytest
import torch

from repro_audit.capture.choices import _READ, choose, chosen


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = chosen()
    yield
    choose(before)


def get(name: str) -> object:
    return operator.attrgetter(name)(torch)


def test_what_torch_begins_with_is_not_told() -> None:
    choose({})
    assert chosen() == {}


@pytest.mark.parametrize("name", _READ)
def test_one_alone(name: str) -> None:
    choose({})
    usual = _READ[name][2]
    other = {"none": "ieee", "tf32": "ieee"}.get(str(usual), not usual)
    owner, _, attribute = name.rpartition(".")
    setattr(get(owner), attribute, [False, False] if isinstance(usual, list) else other)
    found = json.loads(json.dumps(chosen()))
    assert name in found
    choose({})
    assert chosen() == {}
    choose(found)
    assert chosen() == found


def test_by_the_older_names() -> None:
    choose({})
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = False
    found = chosen()
    assert found["backends.cuda.matmul.fp32_precision"] == "tf32"
    assert found["backends.cudnn.conv.fp32_precision"] == "none"
    choose({})
    choose(found)
    assert chosen() == found


def test_every_setting_is_one_that_this_torch_has() -> None:
    functions = {function for function, _, _ in _READ.values()}
    assert {name for name in functions if not hasattr(torch._C, name)} == set()
