"""Fingerprints of checkpoints as JSON: a file that is committed in place of gigabytes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from repro_audit import __version__
from repro_audit.checkpoint.contents import Checkpoint
from repro_audit.checkpoint.memory import Span
from repro_audit.engine import ITEMSIZES, Fingerprints
from repro_audit.errors import CheckpointError, UsageError
from repro_audit.model import Fingerprint, Json

SCHEMA = "repro-audit/fingerprints/1"


def to_json(checkpoints: Sequence[Checkpoint]) -> str:
    """Fingerprints and values of checkpoints; the same bytes for the same contents."""
    files = [
        {
            "path": each.path,
            "digest": each.fingerprints.composite,
            "tensors": {
                name: {"dtype": f.dtype, "shape": list(f.shape), "digest": f.digest}
                for name, f in each.fingerprints.items()
            },
            "values": dict(each.values),
        }
        for each in checkpoints
    ]
    document = {"schema": SCHEMA, "tool": {"version": __version__}, "files": files}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read_kept(span: Span) -> Checkpoint:
    """The one checkpoint whose fingerprints a file keeps.

    Raises CheckpointError where it is none or of another version, UsageError where it keeps
    several.
    """
    try:
        document = json.loads(span.bytes())
        if document.get("schema") != SCHEMA:
            raise CheckpointError(
                f"{span.what} has no fingerprints, or those of another version (schema "
                f"{document.get('schema')!r}, {SCHEMA!r} is known). Make them anew: repro-audit "
                "fingerprint CHECKPOINT --format json -o FILE"
            )
        files = document["files"]
        if len(files) != 1:
            raise UsageError(
                f"{span.what} keeps the fingerprints of {len(files)} checkpoints. To compare with "
                "it, keep each in a file of its own."
            )
        return _checkpoint(files[0], span.what)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{span.what} is damaged, or no file of fingerprints ({error!r}). Make it anew."
        ) from error


def _checkpoint(file: Json, path: str) -> Checkpoint:
    fingerprints = Fingerprints(
        {name: _fingerprint(f) for name, f in file["tensors"].items()},
    )
    if fingerprints.composite != file["digest"]:
        raise CheckpointError(f"{path} was changed: its digests do not add up. Make it anew.")
    return Checkpoint(path, "fingerprints", {}, dict(file["values"]), fingerprints)


def _fingerprint(f: Json) -> Fingerprint:
    shape = tuple(map(int, f["shape"]))
    nbytes = math.prod(shape) * ITEMSIZES[f["dtype"]]
    return Fingerprint(str(f["digest"]), str(f["dtype"]), shape, nbytes)
