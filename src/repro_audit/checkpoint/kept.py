"""Fingerprints of checkpoints as JSON: a file that is committed in place of gigabytes."""

from __future__ import annotations

import hashlib
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
    files = []
    for each in checkpoints:
        file = {
            "path": each.path,
            "digest": each.fingerprints.composite,
            "tensors": {
                name: {"dtype": f.dtype, "shape": list(f.shape), "digest": f.digest}
                for name, f in each.fingerprints.items()
            },
            "ties": dict(each.ties),
            "values": dict(each.values),
            "metadata": dict(each.metadata),
        }
        files.append(file | {"seal": _seal(file)})
    document = {"schema": SCHEMA, "tool": {"version": __version__}, "files": files}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read_kept(span: Span) -> Checkpoint:
    """The one checkpoint whose fingerprints a file keeps.

    Raises CheckpointError where it is none, of another version, or was changed, UsageError where
    it keeps several; what the json module and lookups raise where it is damaged.
    """
    document = json.loads(span.bytes(), parse_constant=_refused)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{span.what} has no fingerprints of a known version ({SCHEMA}). Make them anew: "
            "repro-audit fingerprint CHECKPOINT --format json -o FILE"
        )
    files = document["files"]
    if len(files) != 1:
        raise UsageError(
            f"{span.what} keeps the fingerprints of {len(files)} checkpoints. To compare with it, "
            "keep each in a file of its own."
        )
    (file,) = files
    fingerprints = Fingerprints({name: _kept(f) for name, f in file["tensors"].items()})
    unsealed = {name: part for name, part in file.items() if name != "seal"}
    if _seal(unsealed) != file["seal"] or fingerprints.composite != file["digest"]:
        raise CheckpointError(f"{span.what} was changed after it was written. Make it anew.")
    return Checkpoint(
        span.what,
        "fingerprints",
        {},
        file["values"],
        metadata=file["metadata"],
        kept=fingerprints,
        kept_ties=file["ties"],
    )


def _seal(file: Json) -> str:
    """A hash of all that is kept of a checkpoint, against changes by mistake."""
    said = json.dumps(file, sort_keys=True, allow_nan=False).encode()
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def _refused(constant: str) -> Json:
    raise ValueError(f"{constant} is no number of JSON's")


def _kept(f: Json) -> Fingerprint:
    shape = tuple(map(int, f["shape"]))
    nbytes = math.prod(shape) * ITEMSIZES[f["dtype"]]
    return Fingerprint(str(f["digest"]), str(f["dtype"]), shape, nbytes)
