"""Which tensors and values of two checkpoints differ, and by how much."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np

from repro_audit import engine
from repro_audit.checkpoint import Checkpoint, reading
from repro_audit.engine.deviation import relative_rms
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import (
    CheckpointPair,
    DifferenceKind,
    Fingerprint,
    TensorDifference,
    UlpDivergence,
    ValueDifference,
)

_T = TypeVar("_T")
# What wraps a module has a name of its own in the paths of its parameters.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# As what a mapping or list with nothing in it is told.
_EMPTY = ("<{}>", "<[]>")
_SEPARATOR = re.compile(r"[./]")


def compare_pair(
    a: Checkpoint, b: Checkpoint, *, ulp: int | None = None, ignored: Sequence[str] = ()
) -> CheckpointPair:
    """What `b` differs by from `a`, bit by bit; distances up to `ulp` are told as within.

    Tensors are matched by name: those of wrappers (DDP's `module`, torch.compile's `_orig_mod`,
    FSDP's) are passed over where more match so, and where no name is in both a prefix that most
    names of one have and the other's lack is taken off. What is left on one side only is matched by
    its bits, where only one tensor there has them. Names that fit a pattern of `ignored` are left
    out.
    """
    renamed, renaming = _renaming(list(a.fingerprints), list(b.fingerprints))
    reads = _matched(b.fingerprints, renamed, a.fingerprints)

    def kept(named: Mapping[str, _T]) -> dict[str, _T]:
        return {
            name: each
            for name, each in named.items()
            if not any(fnmatchcase(name, pattern) for pattern in ignored)
        }

    names = {reads[name]: name for name in b.fingerprints}
    ours = kept(a.fingerprints)
    theirs = kept({known: b.fingerprints[name] for known, name in names.items()})
    both = [name for name in ours if name in theirs]
    differing = [name for name in both if ours[name] != theirs[name]]
    found = [_apart(name, names[name], a, b, ours[name], theirs[name], ulp) for name in differing]
    missing = {name: f for name, f in ours.items() if name not in theirs}
    further = {name: f for name, f in theirs.items() if name not in ours}
    theirs_tied = {reads[name]: reads[other] for name, other in b.ties.items()}
    tied = [*_tied(missing, a.ties, both), *_tied(further, theirs_tied, both)]
    for name in tied:
        missing.pop(name, None)
        further.pop(name, None)
    moved = _moved(missing, further)
    found += [
        TensorDifference(old, names[new], "renamed", missing.pop(old), further.pop(new))
        for old, new in moved
    ]
    found += [TensorDifference(n, n, "missing", f, None) for n, f in missing.items()]
    found += [TensorDifference(n, names[n], "missing", None, f) for n, f in further.items()]
    reads = _matched(b.values, renamed, a.values)
    told, others = kept(a.values), kept({reads[n]: value for n, value in b.values.items()})
    differing_values = list(_values(told, others))
    # Only some formats have any.
    if a.metadata and b.metadata:
        sides = (
            kept({f"__metadata__.{n}": v for n, v in side.metadata.items()}) for side in (a, b)
        )
        differing_values += _values(*sides)
    if len(found) > 1 or differing_values or tied or ignored or any(each.within for each in found):
        # A step of training may leave a bit in one tensor, and leaves more elsewhere.
        found = [replace(each, flipped_bit=None) for each in found]
    return CheckpointPair(
        other=b.path,
        compared=len(both),
        identical=len(both) - len(differing),
        values_compared=sum(
            # A checkpoint that is itself empty holds nothing, though another is so otherwise.
            not (name == "" and told[name] in _EMPTY)
            for name in told.keys() & others.keys()
        ),
        tensors=tuple(found),
        values=tuple(differing_values),
        tied=tuple(tied),
        renaming=renaming,
    )


def _values(a: Mapping[str, object], b: Mapping[str, object]) -> Iterable[ValueDifference]:
    for name, value in a.items():
        if name not in b:
            yield ValueDifference(name, value, None, "b")
        # Zeros of either sign, and what is equal and of another type, are told apart.
        elif repr(value) != repr(b[name]):
            yield ValueDifference(name, value, b[name], None)
    for name, value in b.items():
        if name not in a:
            yield ValueDifference(name, None, value, "a")


def _apart(
    name: str,
    other: str,
    a: Checkpoint,
    b: Checkpoint,
    fingerprint_a: Fingerprint,
    fingerprint_b: Fingerprint,
    tolerated: int | None,
) -> TensorDifference:
    """How far two tensors of one name are apart, where that can be said."""
    kind: DifferenceKind = "value"
    if fingerprint_a.dtype != fingerprint_b.dtype:
        kind = "dtype"
    if fingerprint_a.shape != fingerprint_b.shape:
        kind = "shape"
    found = TensorDifference(name, other, kind, fingerprint_a, fingerprint_b)
    held_a, held_b = a.tensors.get(name), b.tensors.get(other)
    if kind == "shape" or held_a is None or held_b is None:
        return found
    with reading(f"{name} in {a.path} and {b.path}"):
        return _measured(found, held_a.view(), held_b.view(), tolerated)


def _measured(
    found: TensorDifference, view_a: engine.View, view_b: engine.View, tolerated: int | None
) -> TensorDifference:
    kind = found.kind
    try:
        ulp = engine.compare(view_a, view_b)
    except UnsupportedTensorError:
        return found
    floats = kind == "value" and ("float" in ulp.dtype or "complex" in ulp.dtype)
    near = tolerated is not None and ulp.max_ulp <= tolerated
    return replace(
        found,
        ulp=ulp,
        rms=relative_rms(view_a, view_b),
        flipped_bit=_flipped(view_a, view_b, ulp) if floats else None,
        within=floats and near and not (ulp.unordered or ulp.infinity),
    )


def _flipped(a: engine.View, b: engine.View, ulp: UlpDivergence) -> int | None:
    """The bit, from the least significant one, that alone is another in one element of many."""
    if ulp.differing != 1 or ulp.first_index is None or a.numel == 1:
        return None
    index = ulp.first_index[: len(a.shape)]
    one, other = (
        int.from_bytes(np.asarray(engine.raw_array(view)[index]).tobytes(), "little")
        for view in (a, b)
    )
    bits = one ^ other
    return bits.bit_length() - 1 if bits.bit_count() == 1 else None


def _tied(names: Iterable[str], ties: Mapping[str, str], both: list[str]) -> list[str]:
    """Those of `names` whose memory goes by a name in `both` too: some formats keep it once."""
    there = {ties.get(name, name) for name in both}
    return [name for name in names if ties.get(name, name) in there]


def _moved(a: Mapping[str, Fingerprint], b: Mapping[str, Fingerprint]) -> list[tuple[str, str]]:
    """Names of the same bits on both sides, where there is no doubt which belong together."""
    once_a, once_b = (
        {f: name for name, f in side.items() if count[f] == 1}
        for side, count in ((a, Counter(a.values())), (b, Counter(b.values())))
    )
    return [(name, once_b[f]) for f, name in once_a.items() if f in once_b]


def _renaming(a: list[str], b: list[str]) -> tuple[Callable[[str], str] | None, str | None]:
    """How names of `b` become those of `a` without the names of wrappers, and what to say of it.

    None where they are read as they are: unless more of them match otherwise; where none matches,
    with or without a prefix.
    """
    exact = len(set(a) & set(b))
    plain_a, plain_b = ({_unwrapped(name): name for name in side} for side in (a, b))
    matching = len(plain_a.keys() & plain_b.keys())
    taken = given = ""
    if not exact and not matching:
        taken, given = _prefix(plain_a, plain_b), _prefix(plain_b, plain_a)
    elif matching <= exact:
        return None, None

    def read(name: str) -> str:
        plain = _unwrapped(name)
        if taken:
            return plain.removeprefix(taken)
        return given + plain

    found = _matched(dict.fromkeys(b), read, dict.fromkeys(a))
    if all(name == known for name, known in found.items()):
        return None, None
    said = {part for name in (*a, *b) for part in _SEPARATOR.split(name) if part in WRAPPERS}
    return read, ", ".join(f"'{part}'" for part in [*sorted(said), taken or given] if part)


def _matched(
    theirs: Mapping[str, object], read: Callable[[str], str] | None, ours: Mapping[str, object]
) -> dict[str, str]:
    """Their names by what they are read as; as they are where two would become one."""
    if read is None:
        return {name: name for name in theirs}
    plain = {_unwrapped(name): name for name in ours}
    found = {name: plain.get(read(name), name) for name in theirs}
    sound = len(plain) == len(ours) and len(set(found.values())) == len(found)
    return found if sound else {name: name for name in theirs}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefix(short: Mapping[str, object], long: Mapping[str, object]) -> str:
    """What most names of `long` begin with before one of `short`; empty where none does."""
    met = Counter(
        name[: cut.end()]
        for name in long
        for cut in _SEPARATOR.finditer(name)
        if name[cut.end() :] in short
    )
    return met.most_common(1)[0][0] if met else ""
