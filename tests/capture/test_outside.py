"""What a nested batch or result is made of, and what files bring in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from repro_audit import engine
from repro_audit.capture.outside import leaves


@dataclass
class _Result:
    logits: torch.Tensor
    hidden: list[Any] = field(default_factory=list)


def test_a_dataclass_is_gone_into() -> None:
    one, other = torch.ones(2), torch.zeros(3)
    found = leaves({"out": _Result(one, [other, object()])})
    assert [(name, id(leaf)) for name, leaf in found] == [
        ("out.logits", id(one)),
        ("out.hidden.0", id(other)),
    ]
    # One may hold itself.
    around = _Result(one)
    around.hidden.append(around)
    assert [name for name, _ in leaves(around)] == ["logits"]
    # A class is a value, and has none of its fields.
    assert leaves(_Result) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("new", [True, False])
def test_what_a_file_holds_is_an_event(record, tmp_path, new: bool) -> None:
    tensor = torch.arange(3.0)
    saved = {"net": {"weight": tensor}, "seconds": 1.5, "path": "a"}
    torch.save(saved, tmp_path / "last.pt", _use_new_zipfile_serialization=new)
    run = record(lambda: torch.load(tmp_path / "last.pt"))
    (loaded,) = run.ops("torch.load")
    assert (loaded.kind, loaded.phase) == ("batch", "data")
    # When it was saved, and where, is nothing that a result comes of.
    assert loaded.outputs == (("float32", (3,), engine.tensor_digest(tensor), "net.weight"),)
    assert loaded.call_site.startswith("test_outside.py:")


def test_of_a_mapped_file_nothing_is_read(record, tmp_path) -> None:
    torch.save(torch.ones(3), tmp_path / "last.pt")
    assert record(lambda: torch.load(tmp_path / "last.pt", mmap=True)).ops("torch.load") == []
