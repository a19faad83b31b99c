"""What the rules that look for a cause look at."""

from __future__ import annotations

from dataclasses import dataclass

from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed
from repro_audit.trace import Trace


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule looks at: the divergence, its event in a run that has it, and the zoom."""

    divergence: Divergence
    zoomed: Zoomed | None

    @property
    def trace(self) -> Trace:
        """A run that has the event."""
        return self.divergence.a if self.divergence.i is not None else self.divergence.b

    @property
    def event(self) -> int:
        """The event in `trace`."""
        at = self.divergence.i if self.divergence.i is not None else self.divergence.j
        assert at is not None
        return at

    @property
    def process(self) -> str:
        """The process of the event: every process has generators of its own."""
        return self.trace.owner(self.event).process

    @property
    def op(self) -> str:
        """The op's name with its namespace and overload."""
        return self.divergence.origin.key.op

    @property
    def flags(self) -> int:
        """The event's flags."""
        return int(self.trace.flags[self.event])
