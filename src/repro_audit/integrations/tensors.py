"""Tensors in what a program keeps or returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def nested(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in mappings, lists, tuples and dataclasses, with dotted names."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from nested(item, f"{name}.{key}" if name else str(key))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from nested({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, name)
