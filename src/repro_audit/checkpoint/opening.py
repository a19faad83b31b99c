"""Which kind of checkpoint a file or directory is, told by what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from repro_audit.checkpoint import arrays, distributed, kept, safetensors
from repro_audit.checkpoint.archive import entries_of, is_archive, read_archive
from repro_audit.checkpoint.contents import Checkpoint, Held, Value, encodable
from repro_audit.checkpoint.leaves import Leaves
from repro_audit.checkpoint.memory import Span, mapped, reading
from repro_audit.checkpoint.pickled import read
from repro_audit.errors import CheckpointError, UsageError

# Endings that stand for nothing in the names of a directory's tensors.
_SUFFIXES = (".safetensors", ".pth.tar", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy", ".pkl")
_INDEX = ".index.json"
_ZIP = b"PK"
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The pickle that files of torch.save's began with before version 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_KINDS = "safetensors, files of torch.save's, .npy, .npz, pickles, and directories of them"


@dataclass
class _Contents:
    """What was found until now."""

    tensors: dict[str, Held] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def add(self, other: _Contents, lead: str = "") -> None:
        """Take in what another has, each name behind `lead`; raises ValueError for a tensor or
        value whose name is known.
        """
        for mine, theirs in (
            (self.tensors, other.tensors),
            (self.values, other.values),
            (self.metadata, other.metadata),
        ):
            for name, each in theirs.items():
                if lead + name in mine and mine is not self.metadata:
                    raise ValueError(f"{lead + name} is there twice")
                # Shards note the same, or nothing that has to do with their tensors.
                mine.setdefault(lead + name, each)  # type: ignore[arg-type]


def open_checkpoint(path: Path, ignored: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint at `path`: a file, an index of shards, or a directory of such.

    Imports no torch; no pickle is loaded: what one says is read as data. Tensors are read from the
    file when they are looked at: do not change it meanwhile. Of a directory with several
    checkpoints names begin with that of the file, without its suffix, and a slash; files whose
    names fit a pattern of `ignored` are not looked at. Raises UsageError where there is none,
    CheckpointError where it is damaged or of no known kind.
    """
    said = encodable(str(path))
    if not path.exists():
        raise UsageError(f"no checkpoint {said}; name a file or a directory that is there")
    with reading(said):
        if path.is_dir():
            return _directory(path, ignored)
        if path.name.endswith(_INDEX):
            return _checkpoint(path, "shards", _merged(path))
        span = mapped(path)
        if span.owner[:1].tobytes() == b"{":
            return kept.read_kept(span)
        return _checkpoint(path, *_file(span))


def is_checkpoint(path: Path) -> bool:
    """True where `open_checkpoint` is to read `path`: by its first bytes, or by what is in it."""
    if path.is_dir():
        return (path / distributed.METADATA).is_file() or any(map(is_checkpoint, _files(path)))
    if not path.is_file():
        return False
    head = _head(path)
    # Of a file that is named it is said what it is not.
    return _is_index(path) or head.startswith((_ZIP, b"{")) or _by_head(head) is not None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_LEGACY))


def _by_head(head: bytes) -> str | None:
    """The kind of a file that is told by its first bytes alone."""
    if safetensors.looks_like(head):
        return "safetensors"
    if head.startswith(arrays.MAGIC):
        return "numpy"
    if head == _LEGACY:
        return "legacy"
    return "pickle" if head.startswith(_PICKLE) else None


def _contents(span: Span) -> tuple[str, _Contents] | None:
    """The kind of a file, and what is in it; None where it is no checkpoint."""
    head = span.owner[: len(_LEGACY)].tobytes()
    kind = _by_head(head)
    if kind == "safetensors":
        tensors, metadata = safetensors.read_safetensors(span)
        return kind, _Contents(tensors, {}, metadata)
    if kind == "numpy":
        return kind, _Contents(*arrays.read_arrays(span))
    if kind == "legacy":
        raise CheckpointError(
            f"{span.what} was written by torch.save in its format before version 1.6. Save it "
            "anew: torch.save(torch.load(FILE, weights_only=True), FILE)"
        )
    if kind == "pickle":
        leaves = Leaves(_nothing_outside)
        leaves.take(read(span.bytes(), span.what))
        return kind, _Contents(leaves.tensors, leaves.values)
    if not head.startswith(_ZIP):
        return None
    entries = entries_of(span)
    if all(name.endswith(".npy") for name in entries):
        return "numpy", _Contents(*arrays.read_arrays(span))
    return ("torch", _Contents(*read_archive(span, entries))) if is_archive(entries) else None


def _file(span: Span) -> tuple[str, _Contents]:
    """The kind of a file, and what is in it."""
    found = _contents(span)
    if found is None:
        raise CheckpointError(f"{span.what} is no checkpoint of a known kind: {_KINDS} are read.")
    return found


def _nothing_outside(key: str) -> NoReturn:
    raise CheckpointError(f"a storage {key} that a pickle cannot hold. Save it with torch.save.")


def _index(path: Path) -> dict[str, Path]:
    """The names of tensors, and the file in which each is."""
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: it is no file. Name the shards.")
    named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    if any(Path(str(file)).name != file for file in named.values()):
        raise CheckpointError(f"{path} names a file in another directory. Name the shards.")
    return {encodable(name): path.with_name(file) for name, file in named.items()}


def _merged(index: Path) -> _Contents:
    named = _index(index)
    found = _Contents()
    for file in dict.fromkeys(named.values()):
        found.add(_file(mapped(file))[1])
    missing = named.keys() - found.tensors.keys()
    if missing:
        raise CheckpointError(f"{index} names {min(missing)}, which no shard has. Save it anew.")
    return found


def _files(directory: Path) -> Iterator[Path]:
    """The files below a directory that are not hidden, but for the metadata of distributed ones."""
    for place in sorted(directory.rglob("*")):
        parts = place.relative_to(directory).parts
        hidden = any(part.startswith(".") and part != distributed.METADATA for part in parts)
        if not hidden and place.is_file():
            yield place


def _directory(directory: Path, ignored: Sequence[str]) -> Checkpoint:
    members: list[tuple[Path, str, _Contents]] = []
    taken: set[Path] = set()
    files = [file for file in _files(directory) if not _fits(file, directory, ignored)]
    for place in files:
        if place.name == distributed.METADATA:
            found = _Contents(*distributed.read_distributed(place.parent))
            members.append((place.parent, "distributed", found))
            taken.update({place, *place.parent.glob("*.distcp")})
        elif _is_index(place):
            with _member(place):
                members.append((place, "shards", _merged(place)))
                taken.update({place, *_index(place).values()})
    unread: list[str] = []
    for place in files:
        if place in taken:
            continue
        with _member(place):
            known = _contents(mapped(place))
        if known is None:
            unread.append(encodable(place.relative_to(directory).as_posix()))
        else:
            members.append((place, *known))
    if not members:
        raise CheckpointError(f"{directory} has no checkpoint in it: {_KINDS} are read.")
    stems = [_stem(place, directory) for place, _, _ in members]
    whole = _Contents()
    for (place, _, found), stem in zip(members, stems, strict=True):
        # Two that are called the same but for their suffix are told apart by it.
        told = stem if stems.count(stem) == 1 else place.relative_to(directory).as_posix()
        whole.add(found, "" if len(members) == 1 or told == "." else f"{encodable(told)}/")
    form = members[0][1] if len(members) == 1 else "directory"
    return _checkpoint(directory, form, whole, tuple(unread))


def _is_index(path: Path) -> bool:
    return path.name.endswith(_INDEX) and "weight_map" in path.read_text(errors="replace")


def _fits(file: Path, directory: Path, ignored: Sequence[str]) -> bool:
    name = file.relative_to(directory).as_posix()
    return any(fnmatchcase(name, pattern) for pattern in ignored)


@contextmanager
def _member(place: Path) -> Iterator[None]:
    """Where one of a directory's files cannot be read the others may be."""
    try:
        with reading(str(place)):
            yield
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} Of a directory `compare --ignore '{place.name}'` leaves a file out."
        ) from error


def _stem(place: Path, directory: Path) -> str:
    said = place.relative_to(directory).as_posix().removesuffix(_INDEX)
    return next((said.removesuffix(s) for s in _SUFFIXES if said.endswith(s)), said)


def _checkpoint(
    path: Path, form: str, found: _Contents, unread: tuple[str, ...] = ()
) -> Checkpoint:
    said = encodable(str(path))
    return Checkpoint(said, form, found.tensors, found.values, found.metadata, unread)
