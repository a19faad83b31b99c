"""Rows of a batch, and the times of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from repro_audit.errors import UsageError
from repro_audit.model import Target
from repro_audit.replicate.driver import _moved, _rows
from repro_audit.replicate.stopwatch import step_seconds

TARGET = Target("model-file", "model.py")


def test_every_input_with_the_batchs_rows_is_cut(tmp_path: Path) -> None:
    x, labels, mask = torch.randn(6, 3), torch.arange(6), torch.ones(3, 3)
    cut = _rows({"x": x, "more": (labels, mask, "a word", torch.tensor(2.0))}, 2, 4, TARGET)
    assert torch.equal(cut["x"], x[:2])
    assert cut["x"].untyped_storage().nbytes() == 2 * 3 * 4
    rows, square, word, number = cut["more"]
    assert (rows.tolist(), square is mask, word, number.item()) == ([0, 1], True, "a word", 2.0)


@pytest.mark.parametrize("inputs", [torch.ones(3, 2), (torch.ones(3),), torch.tensor(1.0), "none"])
def test_too_few_rows(inputs: object) -> None:
    there = 0 if isinstance(inputs, str) or getattr(inputs, "ndim", 1) == 0 else 3
    with pytest.raises(UsageError, match=rf"batch=4 asks for 4 rows.*build_inputs.*have {there}"):
        _rows(inputs, 1, 4, TARGET)


class _Inputs(NamedTuple):
    x: torch.Tensor
    more: list[torch.Tensor]


def test_a_named_tuple_stays_one() -> None:
    inputs = _Inputs(torch.randn(4, 3), [torch.arange(4)])
    cut = _rows(inputs, 2, 4, TARGET)
    assert isinstance(cut, _Inputs)
    assert (cut.x.shape, cut.more[0].tolist()) == ((2, 3), [0, 1])
    assert isinstance(_moved(cut, "cpu"), _Inputs)


def test_as_many_positions_as_rows_are_not_told_apart() -> None:
    x, bias = torch.randn(8, 8, 16), torch.randn(8, 16)
    with pytest.raises(UsageError, match=r"8 rows and 8 positions.*build_inputs\(\) another") as no:
        _rows((x, bias), 1, 8, TARGET)
    assert "\n" not in str(no.value)
    # By itself, or beside what has other dimensions alone, it is no question.
    assert _rows((x, bias[:4]), 1, 8, TARGET)[0].shape == (1, 8, 16)
    assert _rows(x, 1, 8, TARGET).shape == (1, 8, 16)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [([], None), ([3.0], None), ([3.0, 5.0], 2.0), ([0, 9, 18, 19, 21, 24], 2)],
)
def test_the_median_step_without_the_first_two(tmp_path: Path, times, seconds) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps(times))
    assert step_seconds(path) == seconds
