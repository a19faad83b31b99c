"""What an audit finds, from its runs to its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from repro_audit.model.drift import Drift, OwnErrors, Start
from repro_audit.model.overview import Overview
from repro_audit.model.resumed import Resumption
from repro_audit.model.values import (
    CauseClass,
    Json,
    Placed,
    SiteKey,
    TensorSpec,
    UlpDivergence,
    Verdict,
)

if TYPE_CHECKING:
    from repro_audit.model.matrix import Matrix
    from repro_audit.model.screened import Screening


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
    which run other ops. `incomparable` are random numbers that two machines draw differently,
    and initial weights that were overwritten before they were used.
    """

    compared: int
    identical: int
    divergent: int
    unaligned: int = 0
    incomparable: int = 0

    @classmethod
    def total(cls, counts: Iterable[EventCounts]) -> EventCounts:
        """The sum of them all."""
        each = list(counts)
        return cls(*(sum(getattr(one, field.name) for one in each) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Observed:
    """How often runs differed: of `runs` runs, `distinct` outcomes, and pairs."""

    runs: int
    distinct: int
    differing_pairs: int
    pairs: int


@dataclass(frozen=True, slots=True)
class CausedBy(Placed):
    """The forward op a backward op belongs to; the parameter whose gradient it accumulates.

    Of a parameter, the op that last wrote its value, where that is known.
    """

    op: str
    module: str
    call_site: str | None
    called_from: str | None = None


@dataclass(frozen=True, slots=True)
class Origin(Placed):
    """The first divergence: the event where matching inputs first gave differing outputs.

    `inputs_identical` is True or False only where that event's own inputs were digested.
    `ulp` compares the captured output of the two runs named in `ulp_runs`. `event` is its place
    among those of its process, `rank` that process's in its process group, 0 where it has none.
    `called_from` is the program's own line, where that at `call_site` is an installed package's.
    The `call_site` of a backward op is that of the backward() call, but of one in `backward_code`
    (of a custom Function, a hook) its own. `source` is the text of the line at its own call site,
    or the forward op's where it has none.
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
    source: str | None = None
    called_from: str | None = None
    backward_code: bool = False

    @property
    def own_place(self) -> Placed:
        """What has the line that the op stands for in the source: itself, or its forward op."""
        return self if self.caused_by is None or self.backward_code else self.caused_by


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
    `loader-workers` processes, `native-threads` operators in threads that native code started.
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

    `compared` items (parameters, RNG states, output) agree between runs of one kind, observed or
    not; `varying` do not even then, so nothing can be said of them; `differing` changed under
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
        "cells",
        "start",
        "witness",
        "timing",
        "resume",
        "screen",
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
class Audit:
    """An audit's answer, from which every report is made.

    `words` are those of the command line that it was asked for with, but for where its report goes;
    none where it was asked for in Python.
    """

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
    overview: Overview | None = None
    passes: tuple[Pass, ...] = ()
    manifest_differences: tuple[ManifestDifference, ...] = ()
    warnings: tuple[Warn, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    directory: str | None = None
    reason: str | None = None
    words: tuple[str, ...] = ()
    matrix: Matrix | None = None
    resumption: Resumption | None = None
    screening: Screening | None = None
