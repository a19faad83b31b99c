"""What an audit is asked for, and how it tells the one who asked how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repro_audit.model import Level, Mode, Target


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """One audit as the user asked for it; the defaults are those of the command line.

    `timeout` is in seconds a run. `root` is the directory that numbered audits are made in.
    """

    target: Target
    runs: int = 2
    steps: int | None = None
    timeout: float | None = None
    isolate: bool = False
    device: str | None = None
    mode: Mode = "controlled"
    level: Level = "ops"
    seed: int = 0
    confirm: bool = True
    self_check: bool = False
    root: Path = Path(".repro-audit")


class Progress(Protocol):
    """Told about one run after the other; `start` and `finish` come in pairs."""

    def start(self, run: str, position: int, total: int) -> None:
        """Run `run` begins: the `position`-th (from 1) of `total` known so far."""

    def update(self, steps: int, events: int) -> None:
        """The current run has come this far."""

    def finish(self) -> None:
        """The current run has ended, well or not."""
