"""What a nested batch or result is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

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
