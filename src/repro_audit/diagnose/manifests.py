"""What was not the same when the runs ran."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from repro_audit.model import ManifestDifference

# Ours to vary, or different by nature.
_EXPECTED = frozenset({"run", "directory"})


def differences(
    manifests: Mapping[str, Mapping[str, Any]], *, but: Container[str] = ()
) -> tuple[ManifestDifference, ...]:
    """Fields, dotted and sorted, that are not equal in all manifests (run name → manifest).

    Those in `but` are to differ.
    """
    flat = {run: dict(_flat(manifest)) for run, manifest in manifests.items()}
    fields = sorted({name for fields in flat.values() for name in fields})
    found = []
    for name in fields:
        if name.partition(".")[0] in _EXPECTED or name in but:
            continue
        values = {run: fields.get(name) for run, fields in flat.items()}
        if len({repr(value) for value in values.values()}) > 1:
            found.append(ManifestDifference(name, values))
    return tuple(found)


def lookup(manifest: Mapping[str, Any], field: str) -> Any:
    """A field of a manifest by its dotted name; None where there is none."""
    return dict(_flat(manifest)).get(field)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        full = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(item, Mapping):
            yield from _flat(item, full)
        else:
            yield full, item
