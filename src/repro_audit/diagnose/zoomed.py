"""What two runs that kept an event's tensors say of it: its inputs, its ULP figures, its order."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

from repro_audit.diagnose.nondeterministic import base_of
from repro_audit.engine import compare_streams
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import Event, Json, Origin, Output, SiteKey, TensorSpec, UlpDivergence
from repro_audit.model.codes import ACCUMULATE
from repro_audit.trace import Trace

_STATE = 2
_REAL = ("float", "bfloat", "complex")
# A tensor of fewer numbers may have the bits of another one.
FEW = 4
# What one number comes of that is no other's by chance.
_OF_MANY = frozenset(
    {
        "add",
        "div",
        "dot",
        "linalg_vector_norm",
        "logsumexp",
        "mean",
        "mse_loss",
        "mul",
        "norm",
        "sub",
    }
    | {"binary_cross_entropy", "huber_loss", "nll_loss_forward", "smooth_l1_loss", "sum"}
)
_CONSTANT = frozenset(
    {"arange", "full", "full_like", "lift_fresh", "new_ones", "new_zeros", "ones", "ones_like"}
    | {"scalar_tensor", "zero", "zeros", "zeros_like"}
)
# As which what is no tensor is an input, together.
_ARGUMENTS = "arguments"
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Zoomed:
    """One event seen closely in two runs.

    `inputs_identical` is None where the event has no recorded inputs, or one that could not be
    fingerprinted while the others agree. `reordered` counts the rows (slices of dimension 0) that
    both outputs consist of, in another order; 0 if they do not. `in_place` counts the rows that are
    the same, and all of them; (0, 0) where that is not known. `exchanged` counts the tensors that
    differ among what it was given, if both runs had had all of them before. `generators_identical`
    tells whether what it draws from was in the same state in both; None where it draws from nothing
    that was kept. `given` says which argument that is no tensor differs, where the tensors are the
    same; '' where none does. `accumulates` tells whether it adds to what is there, of an operator
    that does so where it is told to.
    """

    differs: bool
    inputs_identical: bool | None
    output: int | None = None
    spec: TensorSpec | None = None
    ulp: UlpDivergence | None = None
    reordered: int = 0
    in_place: tuple[int, int] = (0, 0)
    exchanged: int = 0
    generators_identical: bool | None = None
    given: str = ""
    accumulates: bool | None = None

    def told_of(self, origin: Origin, runs: tuple[str, str]) -> Origin:
        """`origin`, with what these two runs show of it."""
        return replace(
            origin,
            inputs_identical=self.inputs_identical,
            output=self.output,
            spec=self.spec,
            ulp=self.ulp,
            ulp_runs=runs,
        )


def look(a: Trace, b: Trace, key: SiteKey) -> Zoomed | None:
    """Compare the kept tensors of the event `key`; None if one of the runs does not have it."""
    i, j = a.find(key), b.find(key)
    return None if i is None or j is None else look_at(a, i, b, j)


def look_at(a: Trace, i: int, b: Trace, j: int) -> Zoomed:
    """Compare the kept tensors of an event of `a` with those of one of `b`."""
    mine, other = a.event(i), b.event(j)
    inputs = _inputs_identical(mine.inputs, other.inputs)
    seen = Zoomed(
        differs=False,
        inputs_identical=inputs,
        exchanged=_exchanged(a, mine, b, other) if inputs is False else 0,
        generators_identical=_generators_identical(a, i, b, j),
        given=_given(a, mine, b, other) if inputs is False else "",
        accumulates=_accumulates(a.call(i), mine.key.op),
    )
    for position, (x, y) in enumerate(zip(mine.outputs, other.outputs, strict=False)):
        if x.bits == y.bits:
            continue
        seen = replace(seen, differs=True, output=position, spec=x.spec)
        kept_a, kept_b = a.payload(i, 1, position), b.payload(j, 1, position)
        alike = (x.spec.dtype, x.spec.shape) == (y.spec.dtype, y.spec.shape)
        if kept_a is None or kept_b is None or not alike:
            return seen
        rows = [list(_rows(kept, x.spec)) for kept in (kept_a, kept_b)]
        reordered = len(rows[0]) if sorted(rows[0]) == sorted(rows[1]) else 0
        # Labels are the same by chance.
        told_apart = x.spec.dtype.startswith(_REAL) and len(set(rows[0])) == len(rows[0])
        same = sum(map(operator.eq, *rows))
        return replace(
            seen,
            ulp=ulp_of(kept_a, kept_b, x.spec),
            reordered=reordered,
            in_place=(same, len(rows[0])) if told_apart else (0, 0),
        )
    return seen


def ulp_of(a: bytes, b: bytes, spec: TensorSpec) -> UlpDivergence | None:
    """ULP figures of two kept streams of one spec; None for dtypes without a distance."""
    try:
        return compare_streams(a, b, spec.dtype, spec.shape)
    except UnsupportedTensorError:
        return None


def _inputs_identical(
    mine: tuple[Output, ...] | None, other: tuple[Output, ...] | None
) -> bool | None:
    if mine is None or other is None:
        return None
    if [tensor.bits for tensor in mine] != [tensor.bits for tensor in other]:
        return False
    return True if all(tensor.digest is not None for tensor in mine) else None


def _exchanged(a: Trace, mine: Event, b: Trace, other: Event) -> int:
    """How many tensors it was given that differ, each of which the other run had as well."""
    given = [[x for x in event.inputs or () if x.name != _ARGUMENTS] for event in (mine, other)]
    differing = [(x, y) for x, y in zip(*given, strict=False) if x.bits != y.bits]
    if not differing or any(x.digest is None or y.digest is None for x, y in differing):
        return 0
    if sorted(x.bits for x, _ in differing) == sorted(y.bits for _, y in differing):
        return len(differing)
    known = all(
        _had(trace, event, tensor)
        for x, y in differing
        for trace, event, tensor in ((a, mine, y), (b, other, x))
    )
    return len(differing) if known else 0


def _had(trace: Trace, event: Event, tensor: Output) -> bool:
    """True if a run had computed such numbers before; a few of them, or constants, may be alike."""
    maker = None
    if tensor.spec.dtype.startswith(_REAL):
        maker = trace.maker(event.index, tensor.digest or b"")
    if maker is None:
        return False
    name = base_of(trace.event(maker).key.op)
    return name not in _CONSTANT if telling(tensor) else name in _OF_MANY


def telling(output: Output) -> bool:
    """False for values that come again by chance: of a few numbers, or of integers."""
    numbers = math.prod(output.spec.shape)
    return output.spec.dtype.startswith(_REAL) and numbers >= FEW


def _accumulates(call: Json, op: str) -> bool | None:
    at = ACCUMULATE.get(base_of(op))
    if call is None or at is None:
        return None
    return bool((*call["arguments"], *[False] * (at + 1))[at])


def _given(a: Trace, mine: Event, b: Trace, other: Event) -> str:
    """Which argument that is no tensor differs, where nothing else that an event was given does."""
    if len(mine.inputs or ()) != len(other.inputs or ()):
        return ""
    pairs = list(zip(mine.inputs or (), other.inputs or (), strict=True))
    differing = [x.name for x, y in pairs if x.bits != y.bits]
    if differing != [_ARGUMENTS] or any(x.digest is None for x, _ in pairs):
        return ""
    calls = a.call(mine.index), b.call(other.index)
    if calls[0] is not None and calls[1] is not None:
        for label, x, y in _pairs(*calls):
            if x != y and None not in (values := (_plain(x), _plain(y))):
                return f"{label} is {values[0]} in {a.run} and {values[1]} in {b.run}"
    return "an argument that is no tensor differs"


def _pairs(mine: Json, other: Json) -> Iterator[tuple[str, Json, Json]]:
    """The arguments of two calls of one operator beside each other, each with what it is."""
    for at, (x, y) in enumerate(zip(mine["arguments"], other["arguments"], strict=False)):
        yield from _flat(f"argument {at + 1}", f"a part of argument {at + 1}", x, y)
    for name in sorted({*mine["keywords"]} & {*other["keywords"]}):
        x, y = mine["keywords"][name], other["keywords"][name]
        yield from _flat(f"argument {name}", f"a part of argument {name}", x, y)


def _flat(label: str, part: str, x: Json, y: Json) -> Iterator[tuple[str, Json, Json]]:
    if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
        for one, another in zip(x, y, strict=True):
            yield from _flat(part, part, one, another)
    else:
        yield label, x, y


def _plain(value: Json) -> str | None:
    """A kept argument as Python has it; None for lists, and what has no value to tell."""
    if isinstance(value, dict):
        ((kind, what),) = value.items()
        if kind == "float":
            return repr(float.fromhex(what))
        if kind == "complex":
            return repr(complex(*map(float.fromhex, what)))
        return str(what) if kind in {"device", "dtype", "layout", "memory_format"} else None
    return None if isinstance(value, list) else repr(value)[:_LONGEST]


def _generators_identical(a: Trace, i: int, b: Trace, j: int) -> bool | None:
    states: list[tuple[bytes | None, bytes | None]] = []
    while (pair := (a.payload(i, _STATE, len(states)), b.payload(j, _STATE, len(states)))) != (
        None,
        None,
    ):
        states.append(pair)
    return all(mine == other for mine, other in states) if states else None


def _rows(stream: bytes, spec: TensorSpec) -> Iterator[bytes]:
    """A digest of each slice of dimension 0, where there are several."""
    rows = spec.shape[0] if spec.shape else 0
    if rows < 2 or not stream or len(stream) % rows:
        return
    size = len(stream) // rows
    view = memoryview(stream)
    for at in range(0, len(stream), size):
        yield hashlib.blake2b(view[at : at + size], digest_size=16).digest()
