"""Files of safetensors: a header in JSON, then the tensors' bytes."""

from __future__ import annotations

import json
from typing import Any

from repro_audit.checkpoint.contents import Held, Value
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


def looks_like(span: Span) -> bool:
    """True where the first bytes are those of a header's length and of JSON."""
    head = span.owner[:9].tobytes()
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST


def read_safetensors(span: Span) -> tuple[dict[str, Held], dict[str, Value]]:
    """The tensors of a file, as its header orders them, and its metadata.

    Raises CheckpointError where the file is damaged or cut, or has a dtype without a digest.
    """
    length = int.from_bytes(span.owner[:8].tobytes(), "little")
    header = span.within(8, length, f"the header of {span.what}").bytes()
    data = span.within(8 + length, span.nbytes - 8 - length, span.what)
    tensors: dict[str, Held] = {}
    values: dict[str, Value] = {}
    try:
        for name, entry in json.loads(header).items():
            if name == "__metadata__":
                values.update((f"__metadata__.{key}", str(entry[key])) for key in entry)
            else:
                tensors[name] = _held(name, entry, data)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the header of {span.what} is damaged ({error}). Copy or save it anew."
        ) from error
    return tensors, values


def _held(name: str, entry: dict[str, Any], data: Span) -> Held:
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(
            f"{name} in {data.what} has dtype {entry['dtype']}, which has no digest. Save it in "
            "another."
        )
    begin, end = entry["data_offsets"]
    view = data.within(begin, end - begin, f"{name} of {data.what}").view(
        _DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    )
    if view.nbytes != end - begin:
        raise ValueError(f"{name} has {end - begin} bytes for its {view.nbytes}")
    return Held.of(view)
