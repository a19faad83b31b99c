"""The known answers of boxes, rows, the composite and ULP divergence, on every engine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from repro_audit.engine import choice, row_digests, row_multiset

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_engine_gives_the_committed_answers(each_engine: str, generate: ModuleType) -> None:
    committed = (VECTORS / "engine_vectors.json").read_text(encoding="utf-8")
    assert generate.text(generate.generate(choice.engine())) == committed


def test_rows_through_the_library(each_engine: str, generate: ModuleType) -> None:
    vectors = json.loads((VECTORS / "engine_vectors.json").read_text(encoding="utf-8"))
    for case in vectors["rows"]:
        sizes, dtype = tuple(case["sizes"]), getattr(torch, case["dtype"])
        octets = int(np.prod(sizes)) * dtype.itemsize
        t = torch.from_numpy(generate.pattern(octets)[:octets]).view(dtype).reshape(sizes)
        assert [digest.hex() for digest in row_digests(t)] == case["digests"]
        assert row_multiset(t).hex() == case["multiset"]


def test_row_multiset_is_blind_to_the_order_of_rows_alone(each_engine: str) -> None:
    batch = torch.arange(24.0).reshape(6, 4)
    other = batch[torch.tensor([5, 0, 3, 1, 2, 4])]
    assert row_multiset(other) == row_multiset(batch)
    assert row_multiset(batch.t(), dim=1) == row_multiset(batch)
    assert row_multiset(batch.flip(1)) != row_multiset(batch)
    assert row_multiset(torch.cat([batch[:5], batch[:1]])) != row_multiset(batch)
    assert row_multiset(batch[:5]) != row_multiset(batch)
    assert row_multiset(batch.view(torch.int32)) != row_multiset(batch)
    with pytest.raises(IndexError, match="no dimension 2"):
        row_multiset(batch, 2)
