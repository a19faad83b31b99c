"""Values of one run: tensors, events and their names, what to run; how far tensors are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Json = Any

Mode = Literal["controlled", "deterministic", "as-is"]
Level = Literal["ops", "modules"]
Phase = Literal["data", "rng", "weights", "forward", "backward", "optimizer"]
EventKind = Literal["op", "param", "batch", "rng", "module", "state"]
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

    Of a larger batch a run takes its own rows: where batch and others are one dimension the first,
    with `inside` those of a batch that lies inside the others.
    """

    what: Literal["weights", "inputs", "draws", "all"]
    trace: str
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All a child process needs to know to be one run: written as JSON, read by the child.

    `poison` is the byte that `empty*` memory is filled with. `pins` are conditions to hold fixed,
    by the names of `control.pins`. `beginnings` records what weights, generators and optimizers
    begin each use with, `cut` ends the program as it is about to make that step (from 0). No step
    waits for the optimizers `idle`; `roots` are names of root modules by what they are. `ledger`
    records each draw from the global generators.
    `lockstep` is the descriptor of the line to the referee of two runs in lock-step. `samples` are
    the elements that are kept of each output, `budget` the bytes of outputs that are kept whole,
    with `starting_only` of what the run starts from alone. `held` are values of axes, such as
    `threads=2`, by the names of `control.axes`. Of a model file or class, `batch` is how many rows
    of its inputs are taken, which must have `rows`; `dtype` what it and its floating inputs become;
    `compile` the backend of torch.compile. `stopwatch` is where the times of steps are written by a
    run that is not observed.
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
    starting_only: bool = False
    held: tuple[str, ...] = ()
    batch: int | None = None
    rows: int | None = None
    dtype: str | None = None
    compile: str | None = None
    stopwatch: str | None = None
    beginnings: bool = False
    cut: int | None = None
    idle: tuple[int, ...] = ()
    roots: tuple[tuple[str, str], ...] = ()


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


class Placed:
    """What has a place in the source: `called_from` where `call_site` is a package's line."""

    __slots__ = ()
    call_site: str | None
    called_from: str | None

    @property
    def line(self) -> str:
        """The call site, and the program's own line that leads there; empty if unknown."""
        called = f", called from {self.called_from}" if self.called_from else ""
        return f"{self.call_site or ''}{called}"


@dataclass(frozen=True, slots=True)
class Event(Placed):
    """One recorded thing. `index` is its place in the run, `cause` that of its `CausedBy`.

    `called_from` is the program's own line, where that at `call_site` is an installed package's.
    """

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
    backward_code: bool = False
    called_from: str | None = None
