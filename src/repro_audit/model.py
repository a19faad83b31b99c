"""The values that all rooms speak: frozen, plain, free of torch and SQL.

Words are those of the field: a *digest* is the checksum's 128 bits, a *fingerprint* a digest with
dtype and shape, an *event* one recorded thing, a *site* where it happened, an *origin* the first
event whose inputs match and whose outputs differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Any

Mode = Literal["controlled", "deterministic", "as-is"]
Level = Literal["ops", "modules"]
Phase = Literal["data", "rng", "weights", "forward", "backward", "optimizer"]
EventKind = Literal["op", "param", "batch", "rng", "module"]
Verdict = Literal["identical", "within-tolerance", "divergent", "different-program", "inconclusive"]
CauseClass = Literal[
    "data-order",
    "unseeded-rng",
    "rng-drift",
    "uninitialized-memory",
    "nondeterministic-op",
    "kernel-selection",
    "precision-mode",
    "parallelism",
    "config-difference",
    "unrestored-state",
    "replica-drift",
    "suspected-hardware",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a tensor's bits are: its 128-bit digest (32 hex digits), dtype name, shape and bytes."""

    digest: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    key: int = 0


@dataclass(frozen=True, slots=True)
class UlpDivergence:
    """What two tensors of one shape differ by; see ulp.md in the design, and `cpp/SPEC.md`.

    Counts are elements; for complex tensors each of the two parts counts as an element, and an
    index ends in 0 (real) or 1 (imaginary). `histogram[0]` counts distance 0, `histogram[i]`
    distances in [2^(i-1), 2^i). `max_index` is the first index (row-major) that has `max_ulp`;
    the indices are None where nothing differs (`first_index`) or no distance exceeds 0
    (`max_index`). `differing` is bitwise. `max_absolute` and `max_relative` are float64.
    """

    dtype: str
    shape: tuple[int, ...]
    numel: int
    differing: int
    unordered: int
    nan_payload: int
    signed_zero: int
    infinity: int
    sign_flips: int
    max_ulp: int
    max_index: tuple[int, ...] | None
    max_values: tuple[float, float] | None
    first_index: tuple[int, ...] | None
    first_values: tuple[float, float] | None
    sum_ulp: int
    histogram: tuple[int, ...]
    less: int
    greater: int
    max_absolute: float
    max_relative: float

    @property
    def identical(self) -> bool:
        """True when every bit agrees."""
        return self.differing == 0

    @property
    def mean_ulp(self) -> float:
        """Mean distance over the ordered pairs; 0.0 where there are none."""
        ordered = self.numel - self.unordered
        return self.sum_ulp / ordered if ordered else 0.0

    def percentile(self, p: float) -> tuple[int, int]:
        """Bounds (inclusive) of the p-th percentile (0 < p ≤ 100) read from the histogram."""
        total = sum(self.histogram)
        seen = 0
        for i, count in enumerate(self.histogram):
            seen += count
            if count and seen * 100 >= p * total:
                return (0, 0) if i == 0 else (1 << (i - 1), (1 << i) - 1)
        return (0, 0)


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far two tensors of `numel` elements are apart, by `compared` ones of each.

    `rms` is the root of the sum of the squared differences over that of the larger tensor's
    squares, `bias` from -1 to 1: how much more often the first is the greater one.
    """

    numel: int
    compared: int
    differing: int
    unordered: int
    max_ulp: int
    mean_ulp: float
    max_relative: float
    rms: float
    bias: float

    @property
    def whole(self) -> bool:
        """True if every element was compared."""
        return self.compared >= self.numel


@dataclass(frozen=True, slots=True)
class ChannelDivergence:
    """What the elements at one index of one dimension differ by; counts as in UlpDivergence."""

    differing: int
    unordered: int
    max_ulp: int


@dataclass(frozen=True, slots=True)
class Target:
    """What to audit. `kind` says how to run `path` (or, for a module, `name`)."""

    kind: Literal["script", "module", "model-file", "class"]
    path: str
    name: str = ""
    args: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The target as the user wrote it."""
        if self.kind == "module":
            return f"-m {self.name}"
        return f"{self.path}:{self.name}" if self.kind == "class" else self.path


@dataclass(frozen=True, slots=True)
class SiteKey:
    """What names one event in any run of a program: where it is, and the how-manieth there.

    `thread` is '' for the main thread, 2 for the second that it started, 2.1 for the first that
    this one started; `process` is '' for the program's own, else in the same way.
    """

    step: int
    phase: str
    module: str
    op: str
    call_index: int
    thread: str = ""
    process: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """What happens in one thread after one event and until another has been; from the begin of the
    run where `after` is None.
    """

    after: SiteKey | None
    until: SiteKey


@dataclass(frozen=True, slots=True)
class Given:
    """What a run takes from a recording in place of its own: initial `weights`, `inputs` from
    outside, random `draws`, or `all` that was kept, one event after the other.
    """

    what: Literal["weights", "inputs", "draws", "all"]
    trace: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All a child process needs to know to be one run: written as JSON, read by the child.

    `poison` is the byte that `empty*` memory is filled with. `pins` are conditions to hold fixed,
    by the names of `control.pins`. `ledger` records each draw from the global generators.
    `lockstep` is the descriptor of the line to the referee of two runs in lock-step. `samples` are
    the elements that are kept of each output, `budget` the bytes of outputs that are kept whole.
    """

    run: str
    target: Target
    trace: str
    progress: str
    mode: Mode = "controlled"
    seed: int = 0
    hash_seed: int | None = 0
    poison: int | None = None
    reversed_listings: bool = False
    pins: tuple[str, ...] = ()
    ledger: bool = False
    device: str | None = None
    level: Level = "ops"
    steps: int | None = None
    observe: bool = True
    end_state: str | None = None
    optimizer_ops: bool = False
    interval: Interval | None = None
    capture: tuple[SiteKey, ...] = ()
    since: float | None = None
    lockstep: int | None = None
    samples: int = 0
    budget: int = 0
    given: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a recorded tensor is, without its bits."""

    dtype: str
    shape: tuple[int, ...]
    device: str


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor an event produced or wrote. `digest` (16 bytes) is None where none was taken."""

    spec: TensorSpec
    digest: bytes | None
    name: str = ""

    @property
    def bits(self) -> tuple[str, tuple[int, ...], bytes | None, str]:
        """What is equal for equal tensors, whatever device they are on."""
        return self.spec.dtype, self.spec.shape, self.digest, self.name


@dataclass(frozen=True, slots=True)
class Event:
    """One recorded thing. `index` is its place in the run, `cause` that of its `CausedBy`."""

    index: int
    kind: EventKind
    key: SiteKey
    call_site: str | None
    cause: int | None
    outputs: tuple[Output, ...]
    inputs: tuple[Output, ...] | None = None
    tainted: bool = False
    random: bool = False
    recompute: bool = False


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A finished run: its trace and manifest, and how its program ended."""

    name: str
    trace: str
    manifest: Mapping[str, Json]
    printed: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many events were compared, and how they came out; structural ones are divergent.

    `unaligned` are those without a counterpart that say nothing: between devices of two kinds,
    which run other ops. `incomparable` are random numbers that two machines draw differently.
    """

    compared: int
    identical: int
    divergent: int
    unaligned: int = 0
    incomparable: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """How often runs differed: of `runs` runs, `distinct` outcomes, and pairs."""

    runs: int
    distinct: int
    differing_pairs: int
    pairs: int


@dataclass(frozen=True, slots=True)
class CausedBy:
    """The forward op a backward op belongs to; the parameter whose gradient it accumulates."""

    op: str
    module: str
    call_site: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """The first divergence: the event where matching inputs first gave differing outputs.

    `inputs_identical` is True or False only where that event's own inputs were digested.
    `ulp` compares the captured output of the two runs named in `ulp_runs`. `event` is its place
    among those of its process, `rank` that process's in its process group, 0 where it has none.
    """

    key: SiteKey
    event: int
    output: int | None
    spec: TensorSpec | None
    call_site: str | None
    kind: Literal["value", "structural"]
    caused_by: CausedBy | None = None
    inputs_identical: bool | None = None
    ulp: UlpDivergence | None = None
    ulp_runs: tuple[str, ...] = ()
    other_op: str | None = None
    output_name: str = ""
    rank: int = 0
    recompute: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """Why: a class, how sure, what speaks for it and what to do."""

    cls: CauseClass
    confidence: Literal["likely", "proven"]
    evidence: tuple[str, ...]
    remedies: tuple[str, ...]
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A site at which some pairs of runs first diverged, and how many pairs."""

    origin: Origin
    pairs: int


@dataclass(frozen=True, slots=True)
class ManifestDifference:
    """A recorded condition that was not the same in every run, by run name."""

    field: str
    values: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Warn:
    """Something the reader should know; `code` is stable (RA1xx)."""

    code: str
    message: str
    call_site: str | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """What the first run's trace holds without values, or not at all, and how often.

    `views` and `empty` are operators whose results were not fingerprinted, `unwritten` those that
    read memory which nobody had written; `compiled` are graphs, `cuda-graphs` replays of them,
    `loader-workers` processes.
    """

    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What one as-is run said after controlled runs agreed.

    `holds` is True where it agreed as well. Otherwise `origin` and `cause` tell what repeats
    only because the audit controlled it.
    """

    run: RunInfo
    holds: bool
    events: EventCounts
    origin: Origin | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """Whether an observed program ended in the state of an unobserved one.

    `compared` items (parameters, RNG states, output) agree between two unobserved runs;
    `varying` do not even then, so nothing can be said of them; `differing` changed under
    observation.
    """

    compared: int
    varying: tuple[str, ...]
    differing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """Runs of an audit that looked at the program in one way, and their wall time together.

    `lockstep` of them ran two at a time, in lock-step.
    """

    name: Literal[
        "modules",
        "ops",
        "interval",
        "optimizer",
        "tensors",
        "draws",
        "confirm",
        "experiments",
        "cure",
        "self-check",
        "verify",
        "own",
    ]
    runs: int
    seconds: float
    lockstep: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """The origin's call made again and again by itself, in a process of its own.

    `counts` has how often each distinct result came, the most frequent first; `recorded` is the
    place among them of what the run got, None where it never came. Of `pairs` of calls, none in two
    of them, `differing_pairs` differ. At output number `output`, `between` compares the two most
    frequent results, and `exact` each kept one with the result in float64, rounded; `inexact` says
    why there is none. `problem` says why the call could not be made; then nothing else is known.
    """

    calls: int = 0
    counts: tuple[int, ...] = ()
    pairs: int = 0
    differing_pairs: int = 0
    recorded: int | None = None
    output: int | None = None
    between: UlpDivergence | None = None
    exact: tuple[UlpDivergence, ...] = ()
    inexact: str | None = None
    problem: str | None = None

    @property
    def varies(self) -> bool:
        """True if the same call gave more than one result."""
        return len(self.counts) > 1


@dataclass(frozen=True, slots=True)
class Experiment:
    """Runs of the program, or calls of one op, under conditions of which some were changed.

    `differs` tells whether the divergence is still seen at its origin; None where that could not be
    found out, and then `reason` says why. `n` counts runs, or calls.
    """

    pins: tuple[str, ...]
    said: str
    on: Literal["program", "call"]
    n: int
    differs: bool | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cure:
    """What made the divergence vanish: the whole program was run with it.

    `identical` tells whether those `runs` agree in everything, `remaining` where they first do not.
    A step takes `slowdown` times as long; None where no step could be timed.
    """

    pins: tuple[str, ...]
    remedies: tuple[str, ...]
    runs: int
    identical: bool
    slowdown: float | None = None
    remaining: Origin | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was tried to find out why: each experiment, and what cures it."""

    replay: Replay | None = None
    experiments: tuple[Experiment, ...] = ()
    cure: Cure | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A script that shows the divergence without us, and whether it did when it was tried.

    `shows` is None where it could not be tried, `path` where none could be written; `reason` says
    why.
    """

    path: str | None
    shows: bool | None
    reason: str | None = None


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


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit's answer, from which every report is made."""

    command: str
    target: str
    mode: str
    verdict: Verdict
    engine: str
    runs: tuple[RunInfo, ...]
    events: EventCounts
    observed: Observed
    origin: Origin | None = None
    cause: Cause | None = None
    sightings: tuple[Sighting, ...] = ()
    printed_identical: bool | None = None
    confirmation: Confirmation | None = None
    self_check: SelfCheck | None = None
    reproducer: Reproducer | None = None
    explanation: Explanation | None = None
    start: Start | None = None
    drift: Drift | None = None
    own: OwnErrors | None = None
    passes: tuple[Pass, ...] = ()
    manifest_differences: tuple[ManifestDifference, ...] = ()
    warnings: tuple[Warn, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    directory: str | None = None
    reason: str | None = None
