"""Directories that torch.distributed.checkpoint writes: `.metadata`, and files of parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_audit.checkpoint.archive import read_archive
from repro_audit.checkpoint.contents import Held, Part, Value
from repro_audit.checkpoint.leaves import dtype_named, sizes_of
from repro_audit.checkpoint.memory import Span, mapped
from repro_audit.checkpoint.pickled import Made, Named, read
from repro_audit.errors import CheckpointError

METADATA = ".metadata"


def read_distributed(directory: Path) -> tuple[dict[str, Held], dict[str, Value]]:
    """The tensors of all ranks, put together of their parts, and the values.

    Raises CheckpointError where files are missing or damaged.
    """
    what = str(directory / METADATA)
    try:
        metadata = _fields(read(mapped(directory / METADATA).bytes(), what))
        kinds: dict[str, Any] = metadata["state_dict_metadata"]
        places: dict[str, list[tuple[tuple[int, ...], Mapping[str, Any]]]] = {}
        for index, place in metadata["storage_data"].items():
            fields = _fields(index)
            offset = fields.get("offset")
            begin = () if offset is None else sizes_of(offset)
            places.setdefault(fields["fqn"], []).append((begin, _fields(place)))
        spans = _Spans(directory)
        tensors: dict[str, Held] = {}
        values: dict[str, Value] = {}
        for name, kind in kinds.items():
            fields = _fields(kind)
            if "size" not in fields:
                for _, place in places.get(name, ()):
                    _take(spans.stored(place), name, tensors, values)
                continue
            shape = sizes_of(fields["size"])
            parts = tuple(
                Part(begin, _only(spans.stored(place)))
                for begin, place in sorted(places.get(name, ()), key=lambda part: part[0])
            )
            tensors[name] = Held(_dtype(fields["properties"]), shape, parts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{what} is none of torch.distributed.checkpoint's, or of a version that is not known "
            f"({error!r}). Save the checkpoint by torch.save."
        ) from error
    return tensors, values


class _Spans:
    """The files of a checkpoint, each mapped once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Span] = {}

    def stored(self, place: Mapping[str, Any]) -> Span:
        """Where one thing is stored."""
        name = str(place["relative_path"])
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{self._directory} names a file outside of it, {name}.")
        if name not in self._files:
            self._files[name] = mapped(self._directory / name)
        span = self._files[name]
        return span.within(int(place["offset"]), int(place["length"]), f"a part of {span.what}")


def _fields(x: Any) -> Mapping[str, Any]:
    """The fields of an object of a dataclass."""
    if not isinstance(x, Made) or not isinstance(x.state, Mapping | None):
        raise TypeError(f"{type(x).__name__} where there should be an object")
    return x.state or {}


def _dtype(properties: Any) -> str:
    found = properties.state[0] if isinstance(properties.state, tuple) else None
    if not isinstance(found, Named):
        raise TypeError("a tensor without a dtype")
    return dtype_named(found)


def _only(span: Span) -> Any:
    """The view of the one tensor that a part is."""
    tensors, _ = read_archive(span)
    (held,) = tensors.values()
    return held.view()


def _take(span: Span, name: str, tensors: dict[str, Held], values: dict[str, Value]) -> None:
    """What is stored as an object of its own."""
    found, told = read_archive(span)
    tensors.update((f"{name}.{path}" if path else name, held) for path, held in found.items())
    values.update((f"{name}.{path}" if path else name, value) for path, value in told.items())
