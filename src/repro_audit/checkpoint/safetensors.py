"""Files of safetensors: a header in JSON, then the tensors' bytes."""

from __future__ import annotations

import json
from typing import Any

from repro_audit.checkpoint.contents import Held, encodable, name_of
from repro_audit.checkpoint.memory import Span
from repro_audit.errors import CheckpointError

# The format's own limit of a header.
_LONGEST = 100_000_000
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def looks_like(head: bytes) -> bool:
    """True where the first nine bytes are those of a header's length and of JSON."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST


def read_safetensors(span: Span) -> tuple[dict[str, Held], dict[str, str]]:
    """The tensors of a file, as its header orders them, and its metadata.

    Raises CheckpointError where the file is cut, or has a dtype without a digest.
    """
    length = int.from_bytes(span.owner[:8].tobytes(), "little")
    header = span.within(8, length, f"the header of {span.what}").bytes()
    data = span.within(8 + length, span.nbytes - 8 - length, span.what)
    tensors: dict[str, Held] = {}
    metadata: dict[str, str] = {}
    for name, entry in json.loads(header, object_pairs_hook=_once).items():
        if name == "__metadata__":
            metadata.update((encodable(key), encodable(str(value))) for key, value in entry.items())
        else:
            tensors[name_of(name)] = _held(name_of(name), entry, data)
    return tensors, metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _held(name: str, entry: dict[str, Any], data: Span) -> Held:
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(
            f"{name} in {data.what} has dtype {entry['dtype']}, which is not read. Save it in "
            "another."
        )
    begin, end = entry["data_offsets"]
    view = data.within(begin, end - begin, f"{name} of {data.what}").view(
        _DTYPES[entry["dtype"]], tuple(entry["shape"])
    )
    if view.nbytes != end - begin:
        raise ValueError(f"{name} has {end - begin} bytes for its {view.nbytes}")
    return Held.of(view)
