"""Which kind of checkpoint a file or directory is, told by what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from repro_audit.checkpoint import arrays, distributed, kept, safetensors
from repro_audit.checkpoint.archive import read_archive
from repro_audit.checkpoint.contents import Checkpoint, Held, Value
from repro_audit.checkpoint.memory import Span, mapped
from repro_audit.errors import CheckpointError, UsageError

# What a directory is searched for; a file that is named may be called anything.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy")
_INDEX = ".index.json"
_ZIP = b"PK"
# The pickle that files of torch.save's began with before version 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_KINDS = "safetensors, files of torch.save's, .npy, .npz, and directories of them"


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: a file, an index of shards, or a directory of such.

    Imports no torch; no pickle is loaded: what one says is read as data. Tensors are read from the
    file when they are looked at: do not change it meanwhile. Of a directory with several
    checkpoints names begin with that of the file, without its suffix, and a slash.
    Raises UsageError where there is none, CheckpointError where it is damaged or of no known kind.
    """
    if not path.exists():
        raise UsageError(f"no checkpoint {path}; name a file or a directory that is there")
    if path.is_dir():
        return _directory(path)
    if path.name.endswith(_INDEX):
        return Checkpoint(str(path), "shards", *_merged(_shards(path)))
    span = mapped(path)
    if span.owner[:1].tobytes() == b"{":
        return kept.read_kept(span)
    return Checkpoint(str(path), *_file(span))


def is_checkpoint(path: Path) -> bool:
    """True where `open_checkpoint` is to read `path`: by its first bytes, or by what is in it."""
    if path.is_dir():
        return (path / distributed.METADATA).is_file() or any(True for _ in _members(path))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(len(_LEGACY))
    known = head.startswith((_ZIP, arrays.MAGIC, _LEGACY, b"{")) or head[8:9] == b"{"
    return known or path.name.endswith(SUFFIXES)


def _file(span: Span) -> tuple[str, dict[str, Held], dict[str, Value]]:
    """The kind of a file, its tensors and values."""
    head = span.owner[: len(_LEGACY)].tobytes()
    if safetensors.looks_like(span):
        return "safetensors", *safetensors.read_safetensors(span)
    if head.startswith(arrays.MAGIC):
        return "numpy", arrays.read_arrays(span), {}
    if head.startswith(_ZIP):
        if span.what.endswith(".npz"):
            return "numpy", arrays.read_arrays(span), {}
        return "torch", *read_archive(span)
    if head == _LEGACY:
        raise CheckpointError(
            f"{span.what} was written by torch.save in its format before version 1.6. Save it "
            "anew: torch.save(torch.load(FILE, weights_only=True), FILE)"
        )
    raise CheckpointError(f"{span.what} is no checkpoint of a known kind: {_KINDS} are read.")


def _shards(index: Path) -> list[Path]:
    """The files that an index names, each once, in its order."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = list(dict.fromkeys(str(name) for name in names))
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{index} is no index of a checkpoint's shards ({error!r}). Name the shards."
        ) from error
    if any(Path(name).name != name for name in files):
        raise CheckpointError(f"{index} names a file in another directory. Name the shards.")
    return [index.with_name(name) for name in files]


def _merged(files: list[Path]) -> tuple[dict[str, Held], dict[str, Value]]:
    tensors: dict[str, Held] = {}
    values: dict[str, Value] = {}
    for file in files:
        _, held, told = _file(mapped(file))
        for name in held:
            if name in tensors:
                raise CheckpointError(f"{name} is in {file} and in another shard. Save it anew.")
        tensors.update(held)
        values.update(told)
    return tensors, values


def _members(directory: Path) -> Iterator[tuple[str, Path, list[Path]]]:
    """The checkpoints below a directory: how each is called, where it is, of which files."""
    taken: set[Path] = set()
    found = sorted(
        place
        for place in directory.rglob("*")
        if not any(
            part.startswith(".") and part != distributed.METADATA
            for part in place.relative_to(directory).parts
        )
        and place.is_file()
    )
    for place in found:
        if place.name == distributed.METADATA:
            yield place.parent.relative_to(directory).as_posix(), place.parent, []
        if place.name.endswith(_INDEX) and "weight_map" in place.read_text(errors="replace"):
            files = _shards(place)
            taken.update(files)
            stem = place.name.removesuffix(_INDEX)
            yield _stem(place.with_name(stem), directory), place, files
    for place in found:
        if place.name.endswith(SUFFIXES) and place not in taken:
            yield _stem(place, directory), place, [place]


def _stem(place: Path, directory: Path) -> str:
    stem = place.with_suffix("") if place.name.endswith(SUFFIXES) else place
    return stem.relative_to(directory).as_posix()


def _directory(directory: Path) -> Checkpoint:
    members = list(_members(directory))
    if not members:
        raise CheckpointError(f"{directory} has no checkpoint in it: {_KINDS} are read.")
    tensors: dict[str, Held] = {}
    values: dict[str, Value] = {}
    for stem, place, files in members:
        held, told = _merged(files) if files else distributed.read_distributed(place)
        # Two that are called the same but for their suffix.
        twice = sum(stem == other for other, _, _ in members) > 1
        lead = "" if len(members) == 1 else f"{place.name if twice else stem}/"
        tensors.update((lead + name, tensor) for name, tensor in held.items())
        values.update((lead + name, value) for name, value in told.items())
    return Checkpoint(str(directory), "directory", tensors, values)
