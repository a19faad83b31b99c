"""The trace of one of a run's processes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.errors import TraceError, UsageError
from repro_audit.model import Json
from repro_audit.replicate import ours
from repro_audit.replicate.plan import plan_to_json
from repro_audit.trace import Writer

if TYPE_CHECKING:
    from repro_audit.replicate.run import Run


class RunTrace(Writer):
    """A run's trace. Where it cannot be written the run ends, whatever the program would catch."""

    def __init__(self, run: Run, path: Path, main: str) -> None:
        self._run = run
        member = run.member
        super().__init__(
            path,
            run=run.plan.run,
            plan=plan_to_json(run.plan),
            process=member.name,
            main=main,
            late=bool(member.name),
        )

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """As `Writer` does."""
        with self._written():
            super().payload(event, role, position, view)

    def call(self, event: int, call: Json) -> None:
        """As `Writer` does."""
        with self._written():
            super().call(event, call)

    def flush(self) -> None:
        """As `Writer` does."""
        with self._written():
            super().flush()

    def close(
        self, *, manifest: Mapping[str, Any], closing: Mapping[str, Any], cut: bool = False
    ) -> None:
        """As `Writer` does."""
        with self._written():
            super().close(manifest=manifest, closing=closing, cut=cut)

    def _open(self) -> sqlite3.Connection:
        if not self._run.member.name:
            return super()._open()
        self.path.parent.mkdir(exist_ok=True)
        try:
            connection = super()._open()
        except FileExistsError:
            raise TraceError(f"{self.path} exists already") from None
        # A fork comes to the log with its trace.
        self._run.tell("here", self._run.member)
        self._run.tell("traced", self._run.member)
        return connection

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, TraceError) as error:
            plan = self._run.plan
            own = [self.path] if self.begun else []
            for path in (Path(plan.trace), *own):
                if not path.exists():
                    self._run.end(ours.removed(plan, path))
            reason = str(error) if isinstance(error, TraceError) else f"cannot write: {error}"
            way_out = "Make room there, or end the program earlier with --steps N."
            self._run.end(UsageError(f"{reason}. {way_out}"))
