"""Files that torch.save writes: a zip archive of a pickle and of each storage's bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

from repro_audit.checkpoint.contents import Held, Value
from repro_audit.checkpoint.leaves import Leaves
from repro_audit.checkpoint.memory import Reading, Span
from repro_audit.checkpoint.pickled import read
from repro_audit.errors import CheckpointError

_PICKLE = "data.pkl"
# Of a file's header in the archive: what is fixed, and where the lengths of the rest are.
_HEADER, _LENGTHS = 30, 26
# What is compressed may become so much larger; torch.save compresses nothing.
_LARGER, _SMALL = 1100, 1 << 24


def entries_of(span: Span) -> dict[str, zipfile.ZipInfo]:
    """What is in a zip archive; raises CheckpointError where names or bytes are told twice."""
    with Reading(span) as file, zipfile.ZipFile(file) as archive:
        found = archive.infolist()
    entries = {entry.filename: entry for entry in found}
    if len(entries) < len(found):
        raise CheckpointError(f"{span.what} has two entries of one name: it is damaged.")
    if min((entry.header_offset for entry in found), default=0) > 0:
        raise CheckpointError(
            f"{span.what} has other bytes before its archive. If it is a part of a distributed "
            "checkpoint, name the directory."
        )
    return entries


def is_archive(entries: Mapping[str, zipfile.ZipInfo]) -> bool:
    """Whether torch.save, or torch.jit.save, wrote it."""
    return any(name.rpartition("/")[2] == _PICKLE for name in entries)


def read_archive(
    span: Span, entries: Mapping[str, zipfile.ZipInfo] | None = None
) -> tuple[dict[str, Held], dict[str, Value]]:
    """The tensors and values in a file of torch.save's, with its `entries` where they are known.
    Nothing in it is run or imported.

    Raises CheckpointError where it is big-endian, a program (TorchScript), or no archive of
    torch's; what zipfile raises where it is damaged.
    """
    entries = entries_of(span) if entries is None else entries
    pickles = [name for name in entries if name.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1 or f"{pickles[0][: -len(_PICKLE)]}version" not in entries:
        raise CheckpointError(
            f"{span.what} is a zip archive, but none of torch.save's. A checkpoint is needed: "
            "safetensors, a file of torch.save's, .npy or .npz."
        )
    folder = pickles[0][: -len(_PICKLE)]
    if f"{folder}constants.pkl" in entries:
        raise CheckpointError(
            f"{span.what} is a TorchScript program, whose code is not compared. Save its "
            "state_dict()."
        )

    def stored(name: str) -> Span:
        if name not in entries:
            raise CheckpointError(f"{span.what} has no {name}: it is damaged. Save it anew.")
        return _content(span, entries[name])

    order = f"{folder}byteorder"
    if order in entries and stored(order).bytes() != b"little":
        raise CheckpointError(
            f"{span.what} was written on a big-endian machine. Save it anew on this one."
        )
    leaves = Leaves(lambda key: stored(f"{folder}data/{key}"))
    leaves.take(read(stored(pickles[0]).bytes(), span.what))
    return leaves.tensors, leaves.values


def _content(span: Span, entry: zipfile.ZipInfo) -> Span:
    """The bytes of an entry: where they lie in the archive, or unpacked where need be."""
    what = f"{entry.filename} of {span.what}"
    if entry.compress_type != zipfile.ZIP_STORED:
        if entry.file_size > _SMALL + _LARGER * entry.compress_size:
            raise CheckpointError(
                f"{what} says that it is {entry.file_size:,} bytes. Save it anew."
            )
        with Reading(span) as file, zipfile.ZipFile(file) as archive:
            return Span.of(archive.read(entry), what)
    header = span.within(entry.header_offset, _HEADER, what).bytes()
    name = int.from_bytes(header[_LENGTHS : _LENGTHS + 2], "little")
    extra = int.from_bytes(header[_LENGTHS + 2 : _HEADER], "little")
    begin = entry.header_offset + _HEADER + name + extra
    return span.within(begin, entry.file_size, what)
