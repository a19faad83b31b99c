"""Which of many devices is wrong: by what most devices of its kind give, run after run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro_audit.diagnose.align import align
from repro_audit.diagnose.cells import telling_gap
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.errors import InconclusiveError
from repro_audit.model import EventCounts, Json, Observed, Screened, Screening, Standing
from repro_audit.trace import Trace

# With fewer events in common than this share, two runs are not of one program.
_SAME_PROGRAM = 0.5
_NOTHING = EventCounts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Run:
    """A run by its name, and its trace."""

    name: str
    trace: Trace


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device and its runs; where one of them failed, `reason` says how."""

    name: str
    runs: tuple[Run, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What comes of the runs of all devices.

    `divergence` is that of the first device that does not agree, `between` the device that gives
    what it should, or another, and that one. `repeats` is False where most of several devices of a
    kind do not repeat themselves: that is the program's doing, not theirs.
    """

    screening: Screening
    counts: EventCounts
    observed: Observed
    repeats: bool
    divergence: Divergence | None = None
    between: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Apart:
    """Two runs that differ, by the devices that made them."""

    divergence: Divergence
    devices: tuple[str, str]


def screen(candidates: Sequence[Candidate], rounds: int) -> Findings:
    """Compare all runs of each kind of device, and find what most give.

    Every device that repeats itself has a voice; where none does, each has one, shared among its
    results. What has more than half of the voices is right. Costs a comparison of each run with
    each result of its kind. Raises InconclusiveError where two runs are of different programs, or
    have nothing to compare.
    """
    called, groups = _kinds(candidates)
    kinds = [_Kind([candidates[at] for at in members]) for members in groups]
    devices: dict[int, Screened] = {}
    apart: dict[int, _Apart] = {}
    for number, (kind, members) in enumerate(zip(kinds, groups, strict=True)):
        for at in members:
            known = kind.apart(candidates[at])
            if known is not None:
                apart[at] = known
            devices[at] = kind.screened(candidates[at], called[at], number, known)
    # Of the devices that are suspected, if there are any: it is they that a report is about.
    accused = [at for at in apart if devices[at].standing != "disputed"]
    first = None if not apart else apart[min(accused or apart)]
    return Findings(
        Screening(tuple(devices[at] for at in range(len(candidates))), rounds),
        EventCounts.total(kind.counts for kind in kinds),
        Observed(
            sum(len(kind.results_of) for kind in kinds),
            max((len(kind.results) for kind in kinds), default=0),
            sum(kind.differing_pairs for kind in kinds),
            sum(kind.pairs for kind in kinds),
        ),
        all(kind.repeats for kind in kinds),
        None if first is None else first.divergence,
        None if first is None else first.devices,
    )


class _Kind:
    """Devices of one kind: the results that their runs gave, and which of them is right."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._whole = [candidate for candidate in candidates if candidate.reason is None]
        self.counts = _NOTHING
        # One device and run of each result; of each run, by its name, the number of its result.
        self.results: list[tuple[str, Run]] = []
        self.results_of: dict[str, int] = {}
        for candidate in self._whole:
            for run in candidate.runs:
                self.results_of[run.name] = self._result(candidate, run)
        self.right = self._right()
        unsteady = sum(not self._steady(candidate) for candidate in self._whole)
        self.repeats = len(self._whole) < 2 or unsteady <= len(self._whole) / 2

    @property
    def pairs(self) -> int:
        """How many pairs of runs there are."""
        return len(self.results_of) * (len(self.results_of) - 1) // 2

    @property
    def differing_pairs(self) -> int:
        """How many of them differ."""
        times = Counter(self.results_of.values())
        return self.pairs - sum(n * (n - 1) // 2 for n in times.values())

    def apart(self, candidate: Candidate) -> _Apart | None:
        """By which runs a device does not agree; None where it does, or failed."""
        if candidate.reason is not None or self._agrees(candidate):
            return None
        # Of each of its results the first run.
        mine: dict[int, Run] = {}
        for run in candidate.runs:
            mine.setdefault(self.results_of[run.name], run)
        if self.right is not None:
            device, right = self.results[self.right]
            odd = next(run for result, run in mine.items() if result != self.right)
            return _between(device, right, candidate.name, odd)
        if len(mine) > 1:
            one, other, *_ = mine.values()
            return _between(candidate.name, one, candidate.name, other)
        device, known = next(known for n, known in enumerate(self.results) if n not in mine)
        return _between(device, known, candidate.name, candidate.runs[0])

    def screened(
        self, candidate: Candidate, hardware: str, kind: int, apart: _Apart | None
    ) -> Screened:
        """How a device stands among those of its kind."""
        names = tuple(run.name for run in candidate.runs)
        if candidate.reason is not None:
            return Screened(
                candidate.name, hardware, kind, names, "failed", reason=candidate.reason
            )
        standing: Standing = "agrees" if len(self.results_of) > 1 else "single"
        odd = sum(self.results_of[name] != self.right for name in names)
        if not self._steady(candidate):
            standing = "varies"
        elif self.right is None:
            standing = "disputed"
        elif odd:
            standing = "differs"
        found = None if apart is None else apart.divergence
        return Screened(
            candidate.name,
            hardware,
            kind,
            names,
            standing,
            0 if self.right is None else odd,
            None if found is None else found.counts,
            None if found is None else found.origin,
            None if found is None else telling_gap(found.a, found.b, align(found.a, found.b)),
        )

    def _result(self, candidate: Candidate, run: Run) -> int:
        """The number of a run's result; a new one where it equals none."""
        for number, (_, known) in enumerate(self.results):
            divergence, counts, share = compare(known.trace, run.trace)
            if share < _SAME_PROGRAM:
                raise InconclusiveError(
                    f"{known.name} and {run.name} have {share:.0%} of their events in common: they "
                    "are not of one program. Screen devices by one, with the same arguments."
                )
            if not counts.compared:
                raise InconclusiveError(
                    f"{known.name} and {run.name} have no event with a fingerprint in common"
                )
            if number == 0:
                self.counts = EventCounts.total((self.counts, counts))
            if divergence is None:
                return number
        self.results.append((candidate.name, run))
        return len(self.results) - 1

    def _right(self) -> int | None:
        steady = [candidate for candidate in self._whole if self._steady(candidate)]
        voices: dict[int, float] = {}
        heard = steady or self._whole
        for candidate in heard:
            for run in candidate.runs:
                result = self.results_of[run.name]
                voices[result] = voices.get(result, 0.0) + 1 / len(candidate.runs)
        most = max(voices, key=lambda result: voices[result], default=None)
        return most if most is not None and voices[most] > len(heard) / 2 + 1e-9 else None

    def _steady(self, candidate: Candidate) -> bool:
        return len({self.results_of[run.name] for run in candidate.runs}) == 1

    def _agrees(self, candidate: Candidate) -> bool:
        return {self.results_of[run.name] for run in candidate.runs} == {self.right}


def _between(device: str, one: Run, other_device: str, other: Run) -> _Apart:
    divergence, _, _ = compare(one.trace, other.trace)
    assert divergence is not None
    return _Apart(divergence, (device, other_device))


def _kinds(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[int]]]:
    """What each device is called, and which are of one kind; one without a run goes with others."""
    called: list[str] = []
    groups: dict[str, list[int]] = {}
    for at, candidate in enumerate(candidates):
        name, kind = _kind(candidate.runs[0].trace) if candidate.runs else ("", "")
        called.append(name)
        if kind:
            groups.setdefault(kind, []).append(at)
    for at, candidate in enumerate(candidates):
        if candidate.runs:
            continue
        alike = [
            members
            for members in groups.values()
            if _sort(candidates[members[0]].name) == _sort(candidate.name)
        ]
        among = max(alike, key=len) if alike else groups.setdefault(candidate.name, [])
        called[at] = called[among[0]] if among else ""
        among.append(at)
    return called, [sorted(members) for members in groups.values()]


def _sort(device: str) -> str:
    return device.partition(":")[0]


def _kind(trace: Trace) -> tuple[str, str]:
    """What a run's device is called, and what is equal for those that are to give the same bits."""
    manifest = trace.manifest
    settings = manifest.get("torch") or {}
    used = sorted(trace.devices() - {"meta", "cpu"})
    if used:
        shown = (_device_name(device, settings.get("cuda.devices")) for device in used)
        called = " and ".join(dict.fromkeys(shown))
        libraries = ("version.cuda", "backends.cudnn.version")
    else:
        called = str(_found(manifest, "platform", "processor") or "CPU")
        libraries = ("backends.cpu.get_cpu_capability", "get_num_threads")
    version = _found(manifest, "versions", "torch")
    return called, json.dumps([called, version, *(settings.get(name) for name in libraries)])


def _device_name(device: str, names: Json) -> str:
    kind, _, index = device.partition(":")
    if kind == "cuda" and isinstance(names, list) and int(index or 0) < len(names):
        return str(names[int(index or 0)])
    return kind


def _found(manifest: Mapping[str, Json], *path: str) -> Json:
    value: Json = manifest
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
