"""Directories that torch.distributed.checkpoint writes: `.metadata`, and files of parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_audit.checkpoint.archive import read_archive
from repro_audit.checkpoint.contents import Held, Part, Value, encodable
from repro_audit.checkpoint.memory import Span, mapped
from repro_audit.checkpoint.pickled import Made, read
from repro_audit.checkpoint.tensors import dtype_named, sizes_of
from repro_audit.engine import View
from repro_audit.errors import CheckpointError

METADATA = ".metadata"


def read_distributed(directory: Path) -> tuple[dict[str, Held], dict[str, Value]]:
    """The tensors of all ranks, each in its parts, and the values.

    Raises CheckpointError where files are missing, or parts that the metadata tells of.
    """
    what = str(directory / METADATA)
    metadata = _fields(read(mapped(directory / METADATA).bytes(), what))
    kinds: dict[str, Any] = metadata["state_dict_metadata"]
    spans = _Spans(directory)
    places: dict[str, list[tuple[tuple[int, ...], Span]]] = {}
    for index, place in metadata["storage_data"].items():
        fields = _fields(index)
        offset = fields.get("offset")
        begin = () if offset is None else sizes_of(offset)
        places.setdefault(fields["fqn"], []).append((begin, spans.stored(_fields(place))))
    if places.keys() != kinds.keys():
        name = min(places.keys() ^ kinds.keys())
        raise CheckpointError(f"{what} and what is stored disagree on {name}. Save it anew.")
    tensors: dict[str, Held] = {}
    values: dict[str, Value] = {}
    for key, kind in kinds.items():
        name, fields = encodable(key), _fields(kind)
        if "size" not in fields:
            for _, span in places[key]:
                found, told = read_archive(span)
                tensors.update((_below(name, path), held) for path, held in found.items())
                values.update((_below(name, path), value) for path, value in told.items())
            continue
        shape, dtype = sizes_of(fields["size"]), dtype_named(fields["properties"].state[0])
        parts = [Part(begin, _only(span)) for begin, span in sorted(places[key], key=_begin)]
        if not all(len(p.begin) == len(p.view.shape) == len(shape) for p in parts):
            raise CheckpointError(f"a part of {name} has another number of dimensions.")
        tensors[name] = Held(dtype, shape, tuple(parts))
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
            raise CheckpointError(
                f"{self._directory} names a file outside of it, {encodable(name)}: it is damaged."
            )
        if name not in self._files:
            self._files[name] = mapped(self._directory / name)
        span = self._files[name]
        part = span.within(place["offset"], place["length"], f"a part of {span.what}")
        if part.owner[:2].tobytes() != b"PK":
            raise CheckpointError(
                f"the parts in {span.what} were not written by torch.save, and are not read. Save "
                "the checkpoint in torch.distributed.checkpoint's usual format."
            )
        return part


def _begin(part: tuple[tuple[int, ...], Span]) -> tuple[int, ...]:
    return part[0]


def _below(name: str, path: str) -> str:
    return f"{name}.{path}" if path else name


def _fields(x: Any) -> Mapping[str, Any]:
    """The fields of an object of a dataclass."""
    if not isinstance(x, Made) or not isinstance(x.state, Mapping | None):
        raise TypeError(f"{type(x).__name__} where there should be an object")
    return x.state or {}


def _only(span: Span) -> View:
    """The view of the one tensor that a part is."""
    tensors, _ = read_archive(span)
    (held,) = tensors.values()
    return held.view()
