"""Tensors that are not the host's plain ones: begun at the op, settled later, none of them lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from repro_audit import engine
from repro_audit.capture import readings
from repro_audit.errors import UnsupportedTensorError


class Late:
    """Rings whose digests come back when they are waited for, or every third time."""

    launches: list[int] = []  # noqa: RUF012 - of all rings

    def __init__(self) -> None:
        self.taken: list[tuple[Any, bytes]] = []
        self.asked = 0

    def of(self, device: torch.device) -> Late:
        return self

    def add(self, t: torch.Tensor, token: Any) -> None:
        (problem,) = self.add_all([t], [token])
        if problem is not None:
            raise problem

    def add_all(self, tensors: list[torch.Tensor], tokens: list[Any]) -> list[Any]:
        self.launches.append(len(tensors))
        problems: list[Any] = []
        for t, token in zip(tensors, tokens, strict=True):
            try:
                self.taken.append((token, engine.tensor_digest(t)))
                problems.append(None)
            except UnsupportedTensorError as error:
                problems.append(error)
        return problems

    def ready(self, *, wait: bool = False) -> list[tuple[Any, bytes]]:
        self.asked += 1
        if not wait and self.asked % 3:
            return []
        found, self.taken = self.taken, []
        return found


@pytest.fixture
def away() -> Callable[[], Any]:
    """Within, every dense tensor goes the way of a device's; gives the sizes of the launches."""

    @contextmanager
    def patched() -> Iterator[list[int]]:
        Late.launches.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(readings.engine, "Rings", Late)
            patch.setattr(readings.engine, "plain_digest", lambda t: None)
            patch.setattr(readings.engine, "stays", lambda t: t.layout is torch.strided)
            yield Late.launches

    return patched


def learn() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    table = nn.Embedding(5, 4, sparse=True)
    updates = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        updates.zero_grad()
        net(table(torch.tensor([1, 1, 3]))).square().mean().backward()
        updates.step()


def test_what_is_recorded_is_the_same(record, away) -> None:
    here = record(learn)
    with away():
        there = record(learn)
    ops = [[e.key for e in run.seen if e.kind != "rng"] for run in (here, there)]
    assert ops[0] == ops[1]
    assert there.values() == here.values()
    assert there.recorder.unobserved == here.recorder.unobserved
    assert not here.recorder.unobserved
    # The gradient of the table, which is sparse: its indices and values.
    sparse = here.ops("aten._sparse_coo_tensor_with_dims_and_tensors")
    assert len(sparse) == 2
    assert all(None not in e.digests for e in sparse)


def test_parameters_and_what_is_kept_for_them_take_one_launch_each(record, away) -> None:
    with away() as launches:
        record(learn)
    # At the first forward and after each of two steps: all four parameters.
    assert launches.count(4) == 3
    # After each step what the optimizer keeps: two moments and a count for each.
    assert launches.count(12) == 2
    assert set(launches) == {1, 4, 12}


def test_rows_are_written_as_they_settle(record, away) -> None:
    with away():
        run = record(lambda: [torch.ones(3) + n for n in range(9000)])
    assert len(run.ops("aten.add")) == 9000
    assert all(None not in e.digests for e in run.ops("aten.add"))
