"""Which part of a run its operators are looked at in: all of it, none, or one interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.model import Interval, Level, SiteKey

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode

# What a thread's operators are: not looked at, events without digests, events.
SILENT, NOTED, READ = range(3)


class Focus:
    """What threads' operators are, step by step and event by event.

    At level `ops` all are events. At level `modules` none is, but those of an `interval`. In the
    step that it begins in they are noted before it: backward ops are explained by forward ones.
    """

    def __init__(self, level: Level, interval: Interval | None) -> None:
        self._all = level == "ops"
        self._interval = interval
        self._over = False

    def dispatches(self, *, poison: int | None) -> bool:
        """Whether operators have to be seen at all."""
        return self._all or self._interval is not None or poison is not None

    @property
    def modules(self) -> bool:
        """Whether modules' outputs and gradients are events."""
        return not self._all

    def begins(self, thread: str, step: int) -> int:
        """What the operators of a thread are where a step begins."""
        if self._all:
            return READ
        interval = self._interval
        if interval is None or self._over or thread != interval.until.thread:
            return SILENT
        after, until = interval.after, interval.until
        if step > until.step or (after is not None and step < after.step):
            return SILENT
        return NOTED if after is not None and step == after.step else READ

    def passed(self, key: SiteKey, mode: OpMode) -> None:
        """An event of a module, a parameter or a batch is over."""
        interval = self._interval
        if interval is None or self._over:
            return
        if key == interval.until:
            mode.reading = SILENT
            self._over = True
        elif key == interval.after:
            mode.reading = READ
