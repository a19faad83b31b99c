"""Pairs of runs that look for a divergence again: in lock-step, then one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from repro_audit.audit.session import Finished, Session
from repro_audit.diagnose.origin import Divergence
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Warn

# Pairs of either kind to try before giving up on an intermittent divergence.
ATTEMPTS = 3
# How it sounds where two programs want the same file.
_OF_FILES = re.compile(r"\b[Ff]ile\b|\block(ed)?\b|exists|\bin use$|[Dd]irectory")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Two runs and where they first diverge, if they do."""

    one: Finished
    other: Finished
    found: Divergence | None
    lockstep: bool


class Attempts:
    """Up to three pairs in lock-step, `NAME-1a` and `NAME-1b`, and as many one after the other.

    In lock-step an op that diverges is caught with its inputs, whichever it is; but two programs at
    once may get into each other's way, and a race may come out the same. A pair in lock-step that
    does not end well is the last of these, which the session notes. `agreed` counts those that
    agreed, `made` pairs of both kinds.
    Programs of several processes have no pairs in lock-step: they may want a port each, and the
    line is the program's own process's alone. Nor do those whose initial weights differ and are
    overwritten before they are used: that is seen later.
    """

    def __init__(
        self, session: Session, divergence: Divergence, name: str, pass_: str, **changes: Any
    ) -> None:
        self._session = session
        alone = len(divergence.a.files) == len(divergence.b.files) == 1
        self._fits = alone and not divergence.counts.incomparable
        self._name = name
        self._pass = pass_
        self._changes = changes
        self.agreed = 0
        self.made = 0

    def __iter__(self) -> Iterator[Attempt]:
        for _ in range(ATTEMPTS if self._fits else 0):
            try:
                attempt = self._pair(lockstep=True)
            except InterruptedRunError:
                raise
            except ReproAuditError as error:
                self._note(error.in_a_line)
                break
            self.agreed += attempt.found is None
            yield attempt
        for _ in range(ATTEMPTS):
            yield self._pair(lockstep=False)

    def _note(self, problem: str) -> None:
        said = "two runs in lock-step did not end well, further ones ran one after the other"
        if not self._session.request.isolate and _OF_FILES.search(problem):
            problem += "; --isolate gives each a directory of its own"
        self._session.notes.append(Warn("RA110", f"{said}: {problem}"))

    def _pair(self, *, lockstep: bool) -> Attempt:
        self.made += 1
        one, other = self._session.pair(
            f"{self._name}-{self.made}", self._pass, lockstep=lockstep, **self._changes
        )
        found, _, _ = self._session.compare(one.trace, other.trace)
        return Attempt(one, other, found, lockstep)
