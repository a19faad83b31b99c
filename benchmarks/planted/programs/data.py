"""What the programs learn from: data sets that give tensors, arrays, lists or dictionaries."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

SIZE = 16


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Fixed float32 numbers around 0, each eighth of them 0."""
    drawn = np.random.default_rng(seed).standard_normal((SIZE, *shape), dtype=np.float32)
    drawn.reshape(-1)[::8] = 0
    return drawn


def labels(classes: int, *shape: int, seed: int = 1) -> np.ndarray:
    """Fixed int64 numbers from 0 to below `classes`."""
    return np.random.default_rng(seed).integers(0, classes, (SIZE, *shape), dtype=np.int64)


class Data(Dataset[Any]):
    """Samples whose fields are the rows of arrays.

    `give` makes of them what a sample is, `augment` changes them first, as its generator likes.
    """

    def __init__(
        self,
        *fields: np.ndarray,
        give: Callable[[list[np.ndarray]], Any],
        augment: Callable[[list[np.ndarray]], list[np.ndarray]] = lambda rows: rows,
    ) -> None:
        self.fields = fields
        self.give = give
        self.augment = augment

    def __len__(self) -> int:
        return SIZE

    def rows(self, index: int) -> list[np.ndarray]:
        """The fields of a sample, as copies."""
        return [np.array(field[index]) for field in self.fields]

    def __getitem__(self, index: int) -> Any:
        return self.give(self.augment(self.rows(index)))


class Tensors(Data):
    """The same, where the rows are read from tensors."""

    def __init__(self, *fields: np.ndarray) -> None:
        super().__init__(*fields, give=tuple)
        self.tensors = [torch.from_numpy(field) for field in fields]

    def __getitem__(self, index: int) -> Any:
        return tuple(tensor[index] for tensor in self.tensors)


def mirrored_by_python(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Half of the samples mirrored, as Python's generator draws."""
    return [np.flip(rows[0], -1).copy(), *rows[1:]] if random.random() < 0.5 else rows


def mirrored_by_numpy(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Half of the samples mirrored, as NumPy's generator draws."""
    return [np.flip(rows[0], -1).copy(), *rows[1:]] if np.random.random() < 0.5 else rows


def lists(rows: list[np.ndarray]) -> Any:
    """A sample of plain numbers."""
    return tuple(row.tolist() for row in rows)


def named(rows: list[np.ndarray]) -> Any:
    """A sample with names."""
    return {"x": rows[0], "y": rows[1]}


def stacked(samples: list[Any]) -> tuple[torch.Tensor, ...]:
    """A batch made by NumPy, of which torch hears when it is whole."""
    return tuple(torch.from_numpy(np.stack(field)) for field in zip(*samples, strict=True))
