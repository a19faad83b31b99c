"""Which device of many is wrong? One program on each, again and again, and what most give."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro_audit import engine
from repro_audit.audit import directories
from repro_audit.audit.comparing import of_recordings
from repro_audit.audit.devices import Device, at_once, check_placed, devices_here
from repro_audit.audit.loop import check_device
from repro_audit.audit.recording import SAMPLES
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Finished, Session, no_events, told_of
from repro_audit.audit.source import with_source
from repro_audit.audit.unobserved import cut_short, unseen_in, warnings_of
from repro_audit.diagnose import manifests
from repro_audit.diagnose.configuration import configured, settings_of
from repro_audit.diagnose.screened import Candidate, Findings, Run, screen
from repro_audit.diagnose.suspected import suspected
from repro_audit.diagnose.zoomed import look
from repro_audit.errors import (
    InconclusiveError,
    InterruptedRunError,
    ReproAuditError,
    UsageError,
)
from repro_audit.model import (
    Audit,
    Cause,
    ManifestDifference,
    Origin,
    RunInfo,
    Screening,
    Verdict,
    Warn,
)
from repro_audit.trace import Trace

# The program that screens where no other is named: it repeats itself on any device that works.
WORKLOAD = "repro_audit.workload"
_NAMED = 4
# What recordings must have in common to be of one program, told and made alike.
_SAME = frozenset(
    {
        *("asked.batch", "asked.compile", "asked.dtype", "asked.hash_seed", "asked.level"),
        *("asked.mode", "asked.pins", "asked.poison", "asked.seed", "asked.steps"),
        *("target.arguments", "target.inputs", "target.sha256"),
    }
)
# What says which device it was, and by what its tensors were fingerprinted.
_OF_DEVICES = ("asked.", "engine", "environment.REPRO_AUDIT_")
_SHOWING = frozenset({"environment.CUDA_VISIBLE_DEVICES", "environment.HIP_VISIBLE_DEVICES"})


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


def run_screen(request: ScreenRequest, progress: Progress) -> Audit:
    """Run the program on every device, round by round, and tell which do not do what most do.

    Where one does not, it and one that does run once more, to keep the tensors at the place where
    they part. A run that fails beside others is made once more alone; a device on which it fails
    then too is a result, but where all fail the first error is raised. Raises UsageError for a
    device that is not here, or that the program leaves, InconclusiveError where nothing can be
    compared.
    """
    devices = devices_here(request.program.devices)
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
    `run_screen` does, and where they were not made alike; UsageError for fewer than two.
    """
    if len(paths) < 2:
        raise UsageError("one recording compares with nothing: name those of several machines")
    seen: dict[Path, Path] = {}
    for path in paths:
        if seen.setdefault(path.resolve(), path) is not path:
            raise UsageError(f"{path} is named twice: a recording agrees with itself; name others")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    known: set[bytes] = set()
    with contextlib.ExitStack() as opened:
        made = [_read(path, known, opened) for path in paths]
        runs = tuple(
            RunInfo(run.name, run.name, {**run.trace.manifest, "steps": run.trace.steps})
            for run in made
        )
        differences = manifests.differences({run.name: run.manifest for run in runs})
        unlike = next((found for found in differences if found.field in _SAME), None)
        if unlike is not None:
            said = " and ".join(dict.fromkeys(map(str, unlike.values.values())))
            raise InconclusiveError(
                f"the recordings were not made alike: {unlike.field} is {said}. Record the same "
                "program in the same way on each machine."
            )
        found = screen([Candidate(name, (run,)) for name, run in zip(names, made, strict=True)], 1)
        cause = _cause(found.screening, recorded=True)
        if cause is not None and found.between is not None:
            pair = {name for _, name in found.between}
            between = manifests.differences({r.name: r.manifest for r in runs if r.name in pair})
            cause = _configured(cause, between)
        traces = [run.trace for run in made]
        return replace(
            _audit(found, " ".join(run.name for run in runs), cause),
            mode=str(traces[0].plan.get("mode", "")),
            runs=runs,
            warnings=tuple(of_recordings(runs, traces)),
            manifest_differences=differences,
            unseen=unseen_in(traces[0]),
        )


def _read(path: Path, known: set[bytes], opened: contextlib.ExitStack) -> Run:
    """A recording; what equals one of those `known` is read no further, and costs no file."""
    trace = opened.enter_context(contextlib.closing(Trace.open(path)))
    return _noted(Run.of(str(path), trace), known)


def _noted(run: Run, known: set[bytes]) -> Run:
    if run.whole in known:
        run.trace.close()
    known.add(run.whole)
    return run


def _configured(cause: Cause, differences: Sequence[ManifestDifference]) -> Cause:
    """`cause`, or that the odd one ran under other settings than the one that is right."""
    ours = [
        found
        for found in differences
        if not found.field.startswith(_OF_DEVICES)
        and not found.field.endswith(".devices")
        and found.field not in _SHOWING
    ]
    if cause.cls != "suspected-hardware" or not settings_of(ours):
        return cause
    return configured(Cause("unknown", "likely", cause.evidence, ()), ours)


class _Screen:
    """The runs of one screening."""

    def __init__(self, request: ScreenRequest, session: Session, devices: Sequence[Device]) -> None:
        self._request = request
        self._session = session
        self._devices = devices
        self._finished: list[Finished] = []
        self._runs: dict[str, list[Run]] = {device.name: [] for device in devices}
        self._known: set[bytes] = set()
        self._errors: dict[str, ReproAuditError] = {}

    def audit(self) -> Audit:
        """Run all, and answer."""
        session, program = self._session, self._session.request
        for number in range(1, self._request.rounds + 1):
            self._round(number)
        if not self._finished:
            raise next(iter(self._errors.values()))
        runs = self._finished
        candidates = [
            Candidate(
                device.name,
                tuple(self._runs[device.name]),
                self._errors[device.name].in_a_line if device.name in self._errors else None,
                device.hardware,
            )
            for device in self._devices
        ]
        found = screen(candidates, self._request.rounds)
        stale = any(run.trace.stale_reads for run in runs)
        audit = _audit(
            found,
            program.target.label,
            _cause(found.screening, trusted=_is_workload(program), stale=stale),
        )
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
        jobs = self._request.jobs or at_once(devices)
        outcomes = self._session.several(
            [{"name": f"{d.slug}-{number}", **d.changes} for d in devices],
            [1 / jobs] * len(devices),
            "screen",
        )
        for device, outcome in zip(devices, outcomes, strict=True):
            try:
                try:
                    self._take(device, outcome)
                except UsageError:
                    # What is asked for cannot be done, on whichever device.
                    raise
                except ReproAuditError as error:
                    if min(jobs, len(devices)) == 1:
                        raise
                    self._again(device, number, error)
            except UsageError:
                raise
            except ReproAuditError as error:
                self._errors[device.name] = error

    def _again(self, device: Device, number: int, failed: ReproAuditError) -> None:
        """A run that failed beside others, which may have had what it needs: once more, alone."""
        self._session.total += 1
        run = self._session.observed(f"{device.slug}-{number}-alone", "screen", **device.changes)
        self._take(device, run)
        said = f"{device.name} failed beside others in round {number}, and did not alone"
        self._session.notes.append(Warn("RA116", f"{said}: {failed.in_a_line}"))

    def _take(self, device: Device, outcome: Finished | ReproAuditError) -> None:
        """Count a run. Raises its error, or what makes it worth nothing."""
        if isinstance(outcome, ReproAuditError):
            raise outcome
        reason = no_events(outcome)
        if reason is not None:
            raise InconclusiveError(f"{reason}: there is nothing to compare")
        check_device(self._session.request, outcome, device.changes["device"])
        check_placed(outcome, device, self._session.plan(outcome.info.name, **device.changes))
        self._finished.append(outcome)
        run = Run.of(outcome.info.name, outcome.trace)
        self._runs[device.name].append(_noted(run, self._known))

    def _closer(self, found: Findings, origin: Origin) -> tuple[Origin, list[Warn]]:
        """The origin, with what two further runs that kept its tensors say of it."""
        assert found.between is not None
        if origin.kind == "structural":
            return origin, []
        devices = {device.name: device for device in self._devices}
        names = [device for device, _ in found.between]
        kept = {"capture": (origin.key,), "steps": origin.key.step + 1}
        try:
            a, b = (
                self._session.observed(
                    f"zoom-{letter}-{devices[name].slug}",
                    "tensors",
                    **devices[name].changes,
                    **kept,
                )
                for letter, name in zip("ab", names, strict=True)
            )
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            return origin, [Warn("RA105", f"looking closer did not end well: {error.in_a_line}")]
        seen = look(a.trace, b.trace, origin.key)
        if seen is None or not seen.differs:
            said = f"what {' and '.join(dict.fromkeys(names))} differ by did not recur"
            return origin, [Warn("RA103", f"{said} in two further runs: it is intermittent")]
        return seen.told_of(origin, (a.info.name, b.info.name)), []


def _cause(
    screening: Screening, *, trusted: bool = False, recorded: bool = False, stale: bool = False
) -> Cause | None:
    if _verdict(screening)[0] != "divergent":
        return None
    return suspected(screening, trusted=trusted, recorded=recorded, stale=stale)


def _audit(found: Findings, target: str, cause: Cause | None) -> Audit:
    verdict, reason = _verdict(found.screening)
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


def _verdict(screening: Screening) -> tuple[Verdict, str | None]:
    """Divergent where a device is accused, or devices dispute; inconclusive where nothing tells."""
    unaccused = screening.unaccused
    said = (
        "most devices do not repeat themselves, or fail, so it is the program that does, and tells "
        "nothing of them; `repro-audit run` finds out why"
    )
    if screening.suspects or screening.alone or screening.disputed:
        return "divergent", None
    if unaccused:
        return "inconclusive", said
    lonely = [device.name for device in screening.devices if device.standing == "single"]
    if lonely:
        shown = ", ".join(lonely[:_NAMED]) + (" and others" if lonely[_NAMED:] else "")
        return "inconclusive", (
            f"{shown} ran once, and nothing else of that kind (hardware, libraries, threads) did: "
            "there is nothing to compare with"
        )
    return "identical", None


def _is_workload(program: AuditRequest) -> bool:
    return program.target.kind == "module" and program.target.name == WORKLOAD
