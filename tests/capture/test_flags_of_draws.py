"""Whose generator an operator draws from: torch's global one, or one of the program's own."""

from __future__ import annotations

import pytest
import torch

from repro_audit.model.codes import OWN_GENERATOR, RANDOM

_OWN = torch.Generator()
_DRAWS = {
    "method": lambda g: torch.empty(3).normal_(generator=g),
    "function": lambda g: torch.randn(3, generator=g),
    "distribution": lambda g: torch.multinomial(torch.ones(3), 2, generator=g),
    "initialisation": lambda g: torch.nn.init.uniform_(torch.empty(2, 2), generator=g),
}


@pytest.mark.parametrize("kind", _DRAWS)
@pytest.mark.parametrize(
    ("generator", "flags"),
    [(None, RANDOM), (torch.default_generator, RANDOM), (_OWN, RANDOM | OWN_GENERATOR)],
    ids=["none", "global", "own"],
)
def test_whose(record, kind: str, generator: torch.Generator | None, flags: int) -> None:
    run = record(lambda: _DRAWS[kind](generator))
    (found,) = [event[-1] for event in run.sink.kept["e"] if event[-1] & RANDOM]
    assert found & (RANDOM | OWN_GENERATOR) == flags
