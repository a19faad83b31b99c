"""Which of many devices is wrong: by what most devices of its kind give, run after run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro_audit.diagnose.align import align
from repro_audit.diagnose.cells import telling_gap
from repro_audit.diagnose.manifests import lookup
from repro_audit.diagnose.origin import Divergence, compare
from repro_audit.diagnose.runs import SAME_PROGRAM, same_in_all
from repro_audit.errors import InconclusiveError
from repro_audit.model import EventCounts, Observed, Screened, Screening, Standing
from repro_audit.trace import Trace

# What is equal of runs on devices of one kind.
_ALIKE = (
    *("platform.processor", "torch.backends.cpu.get_cpu_capability", "torch.get_num_threads"),
    *("versions.torch", "torch.version.cuda", "torch.backends.cudnn.version"),
)
# Results that a further one is compared with: where there are more, all runs differ.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Run:
    """A run by its name, and its trace; `whole` is equal for runs that are equal in everything.

    Of those a later one is not read any more: it may be closed.
    """

    name: str
    trace: Trace
    whole: bytes

    @classmethod
    def of(cls, name: str, trace: Trace) -> Run:
        """A run whose trace is open."""
        return cls(name, trace, same_in_all(trace))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device and its runs; `hardware` is what it is called, where that is known without them.

    Where one of them failed, `reason` says how.
    """

    name: str
    runs: tuple[Run, ...]
    reason: str | None = None
    hardware: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What comes of the runs of all devices.

    `divergence` is that of the first device that is accused, else of the first that does not agree;
    `between` are the names of a device and run that gives what it should, or another, and of that
    one.
    """

    screening: Screening
    counts: EventCounts
    observed: Observed
    divergence: Divergence | None = None
    between: tuple[tuple[str, str], tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class _Apart:
    """Two runs that differ, each by the names of its device and itself."""

    divergence: Divergence
    between: tuple[tuple[str, str], tuple[str, str]]


def screen(candidates: Sequence[Candidate], rounds: int) -> Findings:
    """Compare all runs of each kind of device, and find what most give.

    Every device that repeats itself has a voice; where none does, each has one, shared among its
    results. What has more than half of the voices is right. Costs a comparison of each run with
    what is right, and of each result with the others. Raises InconclusiveError where two runs are
    of different programs, or have nothing to compare.
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
    screening = Screening(tuple(devices[at] for at in range(len(candidates))), rounds)
    accused = [at for at in apart if devices[at] in screening.suspects]
    first = None if not apart else apart[min(accused or apart)]
    return Findings(
        screening,
        EventCounts.total(kind.counts for kind in kinds),
        Observed(
            sum(len(kind.results_of) for kind in kinds),
            max((len(kind.results) for kind in kinds), default=0),
            sum(kind.differing_pairs for kind in kinds),
            sum(kind.pairs for kind in kinds),
        ),
        None if first is None else first.divergence,
        None if first is None else first.between,
    )


class _Kind:
    """Devices of one kind: the results that their runs gave, and which of them is right."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._whole = [candidate for candidate in candidates if candidate.reason is None]
        # One device and run of each result; of each run, by its name, the number of its result.
        self.results: list[tuple[str, Run]] = []
        self.results_of: dict[str, int] = {}
        self._numbers: dict[bytes, int] = {}
        # Of runs that are equal in everything the first: the others may be closed.
        self._first: dict[bytes, Run] = {}
        for candidate in candidates:
            for run in candidate.runs:
                self._first.setdefault(run.whole, run)
                self.results_of[run.name] = self._result(candidate, run)
        self.right = self._right()
        self.counts = self._counted()

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
        """By which runs a device does not agree; None where it does, or has none."""
        if not candidate.runs or self._agrees(candidate):
            return None
        # Of each of its results the first run.
        mine: dict[int, Run] = {}
        for run in candidate.runs:
            mine.setdefault(self.results_of[run.name], run)
        if self.right is not None:
            device, right = self.results[self.right]
            odd = next(run for result, run in mine.items() if result != self.right)
            return self._between(device, right, candidate.name, odd)
        if len(mine) > 1:
            one, other, *_ = mine.values()
            return self._between(candidate.name, one, candidate.name, other)
        device, known = next(known for n, known in enumerate(self.results) if n not in mine)
        return self._between(device, known, candidate.name, candidate.runs[0])

    def screened(
        self, candidate: Candidate, hardware: str, kind: int, apart: _Apart | None
    ) -> Screened:
        """How a device stands among those of its kind."""
        names = tuple(run.name for run in candidate.runs)
        odd = sum(self.results_of[name] != self.right for name in names)
        found = None if apart is None else apart.divergence
        return Screened(
            candidate.name,
            hardware,
            kind,
            names,
            self._standing(candidate, odd),
            0 if self.right is None else odd,
            None if found is None else found.counts,
            None if found is None else found.origin,
            None if found is None else telling_gap(found.a, found.b, align(found.a, found.b)),
            candidate.reason,
        )

    def _standing(self, candidate: Candidate, odd: int) -> Standing:
        if candidate.reason is not None:
            return "failed"
        if not self._steady(candidate):
            return "varies"
        if self.right is None:
            return "disputed"
        if odd:
            return "differs"
        return "agrees" if len(self.results_of) > 1 else "single"

    def _between(self, device: str, one: Run, other_device: str, other: Run) -> _Apart:
        divergence, _, _ = compare(self._first[one.whole].trace, self._first[other.whole].trace)
        assert divergence is not None
        return _Apart(divergence, ((device, one.name), (other_device, other.name)))

    def _result(self, candidate: Candidate, run: Run) -> int:
        """The number of a run's result; a new one where it equals none."""
        number = self._numbers.get(run.whole)
        if number is not None:
            return number
        for number, (_, known) in enumerate(self.results[:_MOST]):
            divergence, counts, share = compare(known.trace, run.trace)
            if share < SAME_PROGRAM:
                raise InconclusiveError(
                    f"{known.name} and {run.name} have {share:.0%} of their events in common: they "
                    "are not of one program. Screen devices by one, with the same arguments."
                )
            if not counts.compared:
                raise _nothing(known, run)
            if divergence is None:
                return self._numbers.setdefault(run.whole, number)
        self.results.append((candidate.name, run))
        return self._numbers.setdefault(run.whole, len(self.results) - 1)

    def _counted(self) -> EventCounts:
        """Each run against what is right, or against the first."""
        if not self.results:
            return EventCounts(0, 0, 0)
        _, right = self.results[self.right or 0]
        runs = Counter(self.results_of.values())
        counts = []
        for number, (_, run) in enumerate(self.results):
            _, known, _ = compare(right.trace, run.trace)
            if not known.compared and len(self.results_of) > 1:
                raise _nothing(right, run)
            # It is not compared with itself.
            counts += [known] * (runs[number] - (run is right))
        return EventCounts.total(counts)

    def _right(self) -> int | None:
        steady = [candidate for candidate in self._whole if self._steady(candidate)]
        voices: dict[int, float] = {}
        heard = steady or self._whole
        for candidate in heard:
            for run in candidate.runs:
                result = self.results_of[run.name]
                voices[result] = voices.get(result, 0.0) + 1 / len(candidate.runs)
        most = max(voices, key=lambda result: voices[result], default=None)
        # Shares of a voice do not add up to the bit.
        return most if most is not None and voices[most] > len(heard) / 2 + 1e-9 else None

    def _steady(self, candidate: Candidate) -> bool:
        return len({self.results_of[run.name] for run in candidate.runs}) == 1

    def _agrees(self, candidate: Candidate) -> bool:
        return {self.results_of[run.name] for run in candidate.runs} == {self.right}


def _nothing(one: Run, other: Run) -> InconclusiveError:
    return InconclusiveError(
        f"{one.name} and {other.name} have no event with a fingerprint in common: there is nothing "
        "to compare. Screen by a program that computes something."
    )


def _kinds(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[int]]]:
    """What each device is called, and which are of one kind.

    One without a run goes with most of those that are called so, or, where that is not known, that
    have such a name.
    """
    called: list[str] = []
    groups: dict[str, list[int]] = {}
    for at, candidate in enumerate(candidates):
        hardware, kind = candidate.hardware or "", ""
        if candidate.runs:
            hardware, kind = _kind(candidate)
            groups.setdefault(kind, []).append(at)
        called.append(hardware)
    for at, candidate in enumerate(candidates):
        if candidate.runs:
            continue
        alike = [
            members
            for members in groups.values()
            if _sort(candidates[members[0]].name) == _sort(candidate.name)
            and called[at] in {"", called[members[0]]}
        ]
        among = max(alike, key=len) if alike else groups.setdefault(f"{candidate.name}?", [])
        among.append(at)
    return called, [sorted(members) for members in groups.values()]


def _sort(device: str) -> str:
    return device.partition(":")[0]


def _kind(candidate: Candidate) -> tuple[str, str]:
    """What a device is called, and what is equal for those that are to give the same bits."""
    trace = candidate.runs[0].trace
    manifest = trace.manifest
    processor = str(lookup(manifest, "platform.processor") or "CPU")
    used = sorted(trace.devices() - {"meta", "cpu"})
    called = candidate.hardware
    if called is None:
        shown = (_device_name(device, manifest) for device in used)
        called = " and ".join(dict.fromkeys(shown)) if used else processor
    # Whatever the device, a part of the program may compute on the CPU.
    alike = [lookup(manifest, field) for field in _ALIKE]
    return called, json.dumps([called, *alike])


def _device_name(device: str, manifest: Mapping[str, Any]) -> str:
    kind, _, index = device.partition(":")
    names = lookup(manifest, f"torch.{kind}.devices")
    if isinstance(names, list) and int(index or 0) < len(names):
        return str(names[int(index or 0)])
    return kind
