"""Files that torch.save writes: a zip archive of a pickle and of each storage's bytes."""

from __future__ import annotations

import zipfile

from repro_audit.checkpoint.contents import Held, Value
from repro_audit.checkpoint.leaves import Leaves
from repro_audit.checkpoint.memory import UNREADABLE, Reading, Span
from repro_audit.checkpoint.pickled import read
from repro_audit.errors import CheckpointError

_PICKLE = "data.pkl"
# Of a file's header in the archive: what is fixed, and where the lengths of the rest are.
_HEADER, _LENGTHS = 30, 26


def read_archive(span: Span) -> tuple[dict[str, Held], dict[str, Value]]:
    """The tensors and values in a file of torch.save's. Nothing in it is run or imported.

    Raises CheckpointError where it is damaged, big-endian, or no archive of torch's.
    """
    try:
        with Reading(span) as file, zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.rpartition("/")[2] == _PICKLE]
            if len(pickles) != 1 or f"{pickles[0][: -len(_PICKLE)]}version" not in entries:
                raise CheckpointError(
                    f"{span.what} is a zip archive, but none of torch.save's. A checkpoint is "
                    "needed: safetensors, a file of torch.save's, .npy or .npz."
                )
            folder = pickles[0][: -len(_PICKLE)]
            order = entries.get(f"{folder}byteorder")
            if order is not None and archive.read(order) != b"little":
                raise CheckpointError(
                    f"{span.what} was written on a big-endian machine. Save it anew on this one."
                )

            def stored(key: str) -> Span:
                name = f"{folder}data/{key}"
                if name not in entries:
                    raise CheckpointError(
                        f"{span.what} has no {name}: it is damaged. Save it anew."
                    )
                if entries[name].compress_type != zipfile.ZIP_STORED:
                    return Span.of(archive.read(name), f"{name} of {span.what}")
                return _lying(span, entries[name])

            leaves = Leaves(stored)
            leaves.take(read(archive.read(pickles[0]), span.what))
    except UNREADABLE as error:
        raise CheckpointError(f"{span.what} is damaged ({error}). Copy or save it anew.") from error
    return leaves.tensors, leaves.values


def _lying(span: Span, entry: zipfile.ZipInfo) -> Span:
    """Where in the archive the bytes of an entry are that is not compressed."""
    header = span.within(entry.header_offset, _HEADER, entry.filename).bytes()
    name = int.from_bytes(header[_LENGTHS : _LENGTHS + 2], "little")
    extra = int.from_bytes(header[_LENGTHS + 2 : _HEADER], "little")
    begin = entry.header_offset + _HEADER + name + extra
    return span.within(begin, entry.file_size, f"{entry.filename} of {span.what}")
