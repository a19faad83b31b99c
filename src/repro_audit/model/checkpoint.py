"""What two checkpoints differ by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from repro_audit.model.values import Fingerprint, Json, UlpDivergence, Verdict

DifferenceKind = Literal["value", "dtype", "shape", "missing", "renamed"]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint that was looked at; `digest` is over all of its tensors, `form` its format.

    `unread` are files of a directory that are no checkpoints.
    """

    path: str
    form: str
    digest: str
    tensors: int
    nbytes: int
    values: int
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How a tensor differs from that of the first checkpoint, `a`; None where one has it not.

    `rms` is ‖a-b‖ / max(‖a‖, ‖b‖). `flipped_bit` is told where one bit of one element of many
    is all that differs between the tensors of both. `other` is the name in the second checkpoint.
    """

    name: str
    other: str
    kind: DifferenceKind
    a: Fingerprint | None
    b: Fingerprint | None
    ulp: UlpDivergence | None = None
    rms: float | None = None
    flipped_bit: int | None = None
    within: bool = False


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """What is no tensor, and differs; `missing` names the side that has it not."""

    name: str
    a: Json
    b: Json
    missing: Literal["a", "b"] | None


@dataclass(frozen=True, slots=True)
class CheckpointPair:
    """The first checkpoint and another: what both have, what of it is identical, and the rest.

    `tied` are names that one has and the other has not, of memory that goes by another name too.
    `renaming` says how names of the second were read as those of the first.
    """

    other: str
    compared: int
    identical: int
    values_compared: int
    tensors: tuple[TensorDifference, ...]
    values: tuple[ValueDifference, ...]
    tied: tuple[str, ...] = ()
    renaming: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Checkpoints, each of which was compared with the first."""

    verdict: Verdict
    engine: str
    files: tuple[CheckpointInfo, ...]
    pairs: tuple[CheckpointPair, ...]
    ulp_tolerance: int | None = None
    ignored: tuple[str, ...] = ()
    reason: str | None = None
    words: tuple[str, ...] = ()
