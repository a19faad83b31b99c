"""Which device of many is wrong? One program on each, again and again, and what most give."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro_audit import engine
from repro_audit.audit import directories
from repro_audit.audit.comparing import of_recordings, opened_traces
from repro_audit.audit.loop import check_device
from repro_audit.audit.recording import SAMPLES
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events, told_of
from repro_audit.audit.source import with_source
from repro_audit.audit.unobserved import cut_short, unseen_in, warnings_of
from repro_audit.diagnose.screened import Candidate, Findings, Run, screen
from repro_audit.diagnose.suspected import suspected
from repro_audit.diagnose.zoomed import look
from repro_audit.errors import (
    InconclusiveError,
    InterruptedRunError,
    ReproAuditError,
    UsageError,
)
from repro_audit.model import Audit, Origin, RunInfo, Verdict, Warn
from repro_audit.replicate.machine import Machine, machine

# The program that screens where no other is named: it repeats itself on any device that works.
WORKLOAD = "repro_audit.workload"
# What each run may take of the memory that is there, in KiB, where cores run side by side.
_SHARE = 2**20
_NAMED = 4
_ACCELERATORS = ("cuda", "xpu", "mps")


@dataclass(frozen=True, slots=True)
class ScreenRequest:
    """One screening as the user asked for it.

    `program.devices` are the devices by their names, those of a kind by its name alone; none means
    every accelerator, and where there is none every core. Each runs the program once a round; with
    `jobs` so many at a time, else all of them.
    """

    program: AuditRequest
    rounds: int = 3
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class _Device:
    """A device, and what of a plan lets a run use it alone."""

    name: str
    changes: Mapping[str, Any]


def run_screen(request: ScreenRequest, progress: Progress) -> Audit:
    """Run the program on every device, round by round, and tell which do not do what most do.

    Where one does not, it and one that does run once more, to keep the tensors at the place where
    they part. A device whose runs fail is a result; where all do, the first error is raised. Raises
    UsageError for a device that is not here, InconclusiveError where nothing can be compared.
    """
    devices = _devices(request.program.devices)
    if len(devices) * request.rounds < 2:
        raise UsageError(f"one run of {devices[0].name} compares with nothing: --rounds 2 at least")
    asked = replace(
        request.program, devices=tuple(device.name for device in devices), samples=SAMPLES
    )
    directory = directories.create(asked.root, asked.target)
    with Session(asked, directory, progress) as session:
        session.total = len(devices) * request.rounds
        return _Screen(request, session, devices).audit()


def screen_recordings(paths: Sequence[Path]) -> Audit:
    """The same of recordings of one program, each of another device or machine.

    Imports no torch. Raises TraceError for a file that is no whole trace, InconclusiveError as
    `run_screen` does, UsageError for fewer than two.
    """
    if len(paths) < 2:
        raise UsageError("one recording compares with nothing: name those of several machines")
    seen: dict[Path, Path] = {}
    for path in paths:
        if seen.setdefault(path.resolve(), path) is not path:
            raise UsageError(f"{path} is named twice: a recording agrees with itself; name others")
    names = _distinct([path.stem for path in paths], [str(path) for path in paths])
    with contextlib.ExitStack() as opened:
        traces = opened_traces(paths, opened)
        runs = tuple(
            RunInfo(str(path), str(path), {**trace.manifest, "steps": trace.steps})
            for path, trace in zip(paths, traces, strict=True)
        )
        candidates = [
            Candidate(name, (Run(run.name, trace),))
            for name, run, trace in zip(names, runs, traces, strict=True)
        ]
        found = screen(candidates, 1)
        target = " ".join(run.name for run in runs)
        audit = _audit(found, target, trusted=False, recorded=True)
        return replace(
            audit,
            mode=str(traces[0].plan.get("mode", "")),
            runs=runs,
            warnings=tuple(of_recordings(runs, traces)),
            unseen=unseen_in(traces[0]),
        )


class _Screen:
    """The runs of one screening."""

    def __init__(
        self, request: ScreenRequest, session: Session, devices: Sequence[_Device]
    ) -> None:
        self._request = request
        self._session = session
        self._devices = devices
        self._runs: dict[str, list[Finished]] = {device.name: [] for device in devices}
        self._errors: dict[str, ReproAuditError] = {}

    def audit(self) -> Audit:
        """Run all, and answer."""
        session, program = self._session, self._session.request
        for number in range(1, self._request.rounds + 1):
            self._round(number)
        if len(self._errors) == len(self._devices):
            raise next(iter(self._errors.values()))
        runs = [run for device in self._devices for run in self._runs[device.name]]
        candidates = [
            Candidate(
                device.name,
                tuple(Run(run.info.name, run.trace) for run in self._runs[device.name]),
                self._reason(device),
            )
            for device in self._devices
        ]
        found = screen(candidates, self._request.rounds)
        audit = _audit(found, program.target.label, trusted=_is_workload(program), recorded=False)
        warnings: list[Warn] = []
        reason = cut_short(runs) if audit.verdict == "identical" else None
        if reason is not None:
            audit = replace(audit, verdict="inconclusive", reason=reason)
        if audit.origin is not None and audit.verdict == "divergent":
            origin, warnings = self._closer(found, audit.origin)
            audit = replace(audit, origin=with_source(origin, program.target))
        return replace(
            audit,
            mode=program.mode,
            runs=told_of(*runs),
            passes=session.passes,
            warnings=(*warnings_of(runs, printed_identical=None), *warnings, *session.notes),
            unseen=unseen_in(runs[0].trace),
            directory=str(session.directory),
        )

    def _round(self, number: int) -> None:
        """One run on each device that has not failed."""
        devices = [device for device in self._devices if device.name not in self._errors]
        if not devices:
            return
        share = 1 / (self._request.jobs or _at_once(devices))
        outcomes = self._session.several(
            [{"name": f"{_slug(d.name)}-{number}", **d.changes} for d in devices],
            [share] * len(devices),
            "screen",
        )
        for device, outcome in zip(devices, outcomes, strict=True):
            try:
                if isinstance(outcome, ReproAuditError):
                    raise outcome
                reason = no_events(outcome)
                if reason is not None:
                    raise InconclusiveError(f"{reason}: there is nothing to compare")
                check_device(self._session.request, outcome, device.changes["device"])
            except UsageError:
                # What is asked for cannot be done, on whichever device.
                raise
            except ReproAuditError as error:
                self._errors[device.name] = error
            else:
                self._runs[device.name].append(outcome)

    def _reason(self, device: _Device) -> str | None:
        error = self._errors.get(device.name)
        return None if error is None else error.in_a_line

    def _closer(self, found: Findings, origin: Origin) -> tuple[Origin, list[Warn]]:
        """The origin, with what two further runs that kept its tensors say of it."""
        assert found.between is not None
        if origin.kind == "structural":
            return origin, []
        known = {device.name: device for device in self._devices}
        kept = {"capture": (origin.key,), "steps": origin.key.step + 1}
        try:
            a, b = (
                self._session.observed(
                    f"zoom-{letter}-{_slug(name)}", "tensors", **known[name].changes, **kept
                )
                for letter, name in zip("ab", found.between, strict=True)
            )
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            return origin, [Warn("RA105", f"looking closer did not end well: {error.in_a_line}")]
        seen = look(a.trace, b.trace, origin.key)
        if seen is None or not seen.differs:
            said = f"what {' and '.join(found.between)} differ by did not recur"
            return origin, [Warn("RA103", f"{said} in a further run of each: it is intermittent")]
        refined = replace(
            origin,
            inputs_identical=seen.inputs_identical,
            output=seen.output,
            spec=seen.spec,
            ulp=seen.ulp,
            ulp_runs=(a.info.name, b.info.name),
        )
        return refined, []


def _audit(found: Findings, target: str, *, trusted: bool, recorded: bool) -> Audit:
    """What is found, as an audit; the switches are those of `suspected`."""
    verdict, reason = _verdict(found)
    cause = None
    if verdict == "divergent":
        cause = suspected(found.screening, trusted=trusted, recorded=recorded)
    return Audit(
        command="screen",
        target=target,
        mode="",
        verdict=verdict,
        engine=engine.name(),
        runs=(),
        events=found.counts,
        observed=found.observed,
        origin=found.divergence.origin if found.divergence is not None else None,
        cause=cause,
        reason=reason,
        screening=found.screening,
    )


def _verdict(found: Findings) -> tuple[Verdict, str | None]:
    standings = {device.standing for device in found.screening.devices}
    if standings <= {"agrees"}:
        return "identical", None
    if standings <= {"agrees", "single"}:
        lonely = [device.name for device in found.screening.devices if device.standing == "single"]
        shown = ", ".join(lonely[:_NAMED]) + (" and others" if lonely[_NAMED:] else "")
        return "inconclusive", (
            f"{shown} ran once, and nothing else of that kind (hardware, libraries, threads) did: "
            "there is nothing to compare with"
        )
    if not found.repeats:
        return "inconclusive", (
            "most devices do not repeat themselves, so it is the program that does not, and tells "
            "nothing of them; `repro-audit run` finds out why"
        )
    return "divergent", None


def _is_workload(program: AuditRequest) -> bool:
    return program.target.kind == "module" and program.target.name == WORKLOAD


def _devices(asked: Sequence[str]) -> list[_Device]:
    """The devices of these names; of a kind all that are here.

    Raises UsageError for one that is not, and for one that is named twice.
    """
    here: Machine | None = None
    if not asked or any(not name.startswith("cpu") for name in asked):
        here = machine()
    if not asked:
        assert here is not None
        asked = [kind for kind in _ACCELERATORS if here.devices.get(kind)] or ["cpu"]
    found: dict[str, _Device] = {}
    for name in asked:
        for device in _of(name, here):
            if device.name in found:
                raise UsageError(f"{device.name} is named twice; --rounds N runs it more often")
            found[device.name] = device
    return list(found.values())


def _of(name: str, here: Machine | None) -> list[_Device]:
    kind, _, index = name.partition(":")
    if kind == "cpu":
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if not cores:
            raise UsageError(
                "this system lets nobody choose the core that a process runs on; name accelerators"
            )
        if index and int(index) not in cores:
            raise UsageError(f"there is no core {name} here: {_listed('cpu', cores)} are there")
        return [_core(core) for core in ([int(index)] if index else cores)]
    count = 0 if here is None else here.devices.get(kind, 0)
    if int(index or 0) >= count:
        there = [] if here is None else [f"{k} ({n})" for k, n in here.devices.items() if n]
        raise UsageError(
            f"torch finds no device {name} here. There are: {', '.join(['cpu', *there])}"
        )
    name = f"{kind}:{int(index)}" if index else kind
    names = [name] if index or kind == "mps" else [f"{kind}:{n}" for n in range(count)]
    return [_Device(one, {"device": one}) for one in names]


def _core(core: int) -> _Device:
    held = (f"core={core}", "threads=1")
    return _Device(f"cpu:{core}", {"device": "cpu", "held": held})


def _listed(kind: str, numbers: Sequence[int]) -> str:
    shown = [f"{kind}:{number}" for number in numbers[:8]]
    return ", ".join(shown) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _at_once(devices: Sequence[_Device]) -> int:
    """As many runs as there are devices, but no more than memory is there for."""
    return max(1, min(len(devices), _memory() // _SHARE))


def _memory() -> int:
    """KiB of memory that could be had, as Linux tells it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 8 * _SHARE
    told = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) for words in told), 8 * _SHARE)


def _slug(name: str) -> str:
    return name.replace(":", "-")


def _distinct(short: list[str], long: list[str]) -> list[str]:
    """Short names, where no two are the same."""
    return short if len(set(short)) == len(short) else long
