"""What an audit is asked for, and how it tells the one who asked how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repro_audit.errors import InterruptedRunError
from repro_audit.model import Audit, Given, Level, Mode, Target


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """One audit as the user asked for it; the defaults are those of the command line.

    `timeout` is in seconds a run. `root` is the directory that numbered audits are made in. There
    are two runs where `runs` is None; on several `devices` each has so many of its own, or one.
    With `lockstep` the first two run side by side and end where they come apart; further ones are
    made only if they do not. `samples` and `budget` are elements and bytes of outputs to keep,
    `given` is what runs take from recordings.
    """

    target: Target
    runs: int | None = None
    steps: int | None = None
    timeout: float | None = None
    isolate: bool = False
    devices: tuple[str, ...] = ()
    mode: Mode = "controlled"
    level: Level = "ops"
    seed: int = 0
    confirm: bool = True
    self_check: bool = False
    explain: bool = False
    reproducer: Path | None = None
    lockstep: bool = False
    samples: int = 0
    budget: int = 0
    given: tuple[Given, ...] = ()
    root: Path = Path(".repro-audit")

    @property
    def explaining(self) -> bool:
        """Whether to look for the reason: a reproducer needs to know what it shows."""
        return self.explain or self.reproducer is not None

    @property
    def replicas(self) -> tuple[tuple[str, str | None], ...]:
        """Name and device of each run."""
        if len(self.devices) < 2:
            device = self.devices[0] if self.devices else None
            return tuple((f"run-{n}", device) for n in range(1, (self.runs or 2) + 1))
        names = [device.replace(":", "-") for device in self.devices]
        if (self.runs or 1) == 1:
            return tuple(zip(names, self.devices, strict=True))
        return tuple(
            (f"{name}-run-{n}", device)
            for name, device in zip(names, self.devices, strict=True)
            for n in range(1, (self.runs or 1) + 1)
        )

    @property
    def between_devices(self) -> bool:
        """Whether devices are compared, and not the runs on one."""
        return len(self.devices) > 1


class Progress(Protocol):
    """Told about one run after the other, or two in lock-step; `start` and `finish` alternate."""

    def start(self, run: str, position: int, total: int) -> None:
        """Run `run` begins: the `position`-th (from 1) of `total` known so far.

        Of two in lock-step `run` names both, and the position is the second's.
        """

    def update(self, steps: int, events: int) -> None:
        """The current run has come this far; of two the one that is behind."""

    def finish(self) -> None:
        """The current run has ended, well or not."""


class InterruptedAuditError(InterruptedRunError):
    """The user interrupted an audit that had found something: `audit` is what it would say."""

    def __init__(self, message: str, audit: Audit) -> None:
        super().__init__(message)
        self.audit = audit
