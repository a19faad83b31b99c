"""What is said of recordings that differ: how they started, how they drift, whose error it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repro_audit.model.values import Deviation, SiteKey, TensorSpec


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is no divergence: at most `ulp` of distance, or what `rounding` explains."""

    ulp: int | None = None
    rounding: bool = False

    @property
    def asked(self) -> bool:
        """True if some difference is to be tolerated."""
        return self.ulp is not None or self.rounding


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two runs are apart at one event, at the output where that is most.

    `event` is its place among those of its process. `length` numbers went into one of its results;
    `expected` is the `rms` that rounding explains by then, None where nothing was computed.
    """

    key: SiteKey
    event: int
    output: int
    output_name: str
    spec: TensorSpec
    call_site: str | None
    deviation: Deviation
    length: int
    expected: float | None
    beyond: bool


@dataclass(frozen=True, slots=True)
class Amplification:
    """The step from one layer to the next that a difference grew most by, in `rms`."""

    before: Gap
    after: Gap
    factor: float


@dataclass(frozen=True, slots=True)
class StepDrift:
    """How far apart two runs are in one step.

    `losses` are the numbers that their backwards began at, `forward` is the `rms` of what was
    computed last before, `weights` the largest of a parameter after it.
    """

    step: int
    losses: tuple[float, float] | None
    forward: float | None
    weights: float | None


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the second of two runs is from the first, from event to event.

    Of `differing` events `measured` had values to go by, by `sampled` elements each where that is
    not 0; `beyond` of these are past the tolerance. `first` is the first that differs, if it was
    measured; `layers` are the last of each module in the first step that differs, in order.
    """

    runs: tuple[str, str]
    differing: int
    measured: int
    sampled: int
    beyond: int
    tolerance: Tolerance
    first: Gap | None
    first_beyond: Gap | None
    largest: Gap | None
    amplification: Amplification | None
    bias: float
    layers: tuple[Gap, ...]
    steps: tuple[StepDrift, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """What two runs began with: of `weights`, `inputs` and `draws` how many both had, and how many
    of them differ.
    """

    weights: tuple[int, int]
    inputs: tuple[int, int]
    draws: tuple[int, int]

    @property
    def equal(self) -> bool:
        """True if nothing of it differs."""
        return not (self.weights[1] or self.inputs[1] or self.draws[1])


@dataclass(frozen=True, slots=True)
class OwnError:
    """What an event errs by itself, computed here from the recording's own values.

    `own` is here against the recording, `here` and `there` are both against float64, None where
    there is no such result. `total` is the gap with all that was inherited, where it was measured.
    """

    gap: Gap
    own: Deviation
    here: Deviation | None
    there: Deviation | None
    total: Deviation | None


@dataclass(frozen=True, slots=True)
class OwnErrors:
    """The errors of `events` that were re-run here from the other's values, `differing` of them.

    `nearer` counts events by whose result is nearer to float64. `errors` are the largest by what
    they are beyond rounding, `first` is the first that differs, `first_beyond` the first beyond
    what rounding explains in a single operator.
    """

    events: int
    differing: int
    beyond: int
    missing: int
    nearer: Mapping[str, int]
    first: OwnError | None
    first_beyond: OwnError | None
    errors: tuple[OwnError, ...]
