"""Runs many plans, a few side by side: for answers that do not depend on time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from repro_audit.errors import InterruptedRunError
from repro_audit.model import Plan
from repro_audit.replicate import isolate
from repro_audit.replicate.launch import POLL, Outcome, Replica, termination_interrupts


def run_several(
    plans: Sequence[Plan],
    weights: Sequence[float],
    *,
    directory: Path,
    isolated: bool = False,
    timeout: float | None = None,
    command: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda steps, events: None,
) -> list[Outcome]:
    """Be the supervisor of runs as `launch.run` is of one: as many at once as weigh 1 together.

    One that weighs more runs alone. Outcomes are in the order of the plans; a run that ends badly
    ends no other. `on_progress` is told what those under way have done together; `command` is as
    for `launch.run`. Raises InterruptedRunError on an interrupt, once all are buried.
    """
    waiting = list(range(len(plans)))
    running: dict[int, _Running] = {}
    outcomes: dict[int, Outcome] = {}
    with termination_interrupts():
        try:
            while waiting or running:
                while waiting and (
                    not running or sum(weights[i] for i in (*running, waiting[0])) <= 1.0 + 1e-9
                ):
                    i = waiting.pop(0)
                    running[i] = _Running(plans[i], directory, isolated, timeout, command)
                for i, one in list(running.items()):
                    one.replica.watch()
                    if one.replica.ended or one.replica.overdue:
                        del running[i]
                        outcomes[i] = one.bury()
                made = [one.progress for one in running.values()]
                on_progress(sum(steps for steps, _ in made), sum(events for _, events in made))
                time.sleep(POLL)
        except KeyboardInterrupt:
            for one in running.values():
                one.replica.forget()
                one.replica.interrupt()
            names = ", ".join(plans[i].run for i in running)
            raise InterruptedRunError(f"interrupted in {names}") from None
        finally:
            for one in running.values():
                one.bury()
    return [outcomes[i] for i in range(len(plans))]


class _Running:
    """A run under way, in a place of its own where that is asked for."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        isolated: bool,
        timeout: float | None,
        command: Sequence[str] | None,
    ) -> None:
        self.progress = (0, 0)
        with contextlib.ExitStack() as place:
            workspace = place.enter_context(isolate.workspace(enabled=isolated))
            self.replica = Replica(
                plan,
                directory,
                cwd=workspace.cwd,
                env=workspace.environment,
                timeout=timeout,
                command=command,
            )
            self._place = place.pop_all()
        self.replica.follow(self._tell)

    def bury(self) -> Outcome:
        """Reap it, and give its place back."""
        try:
            return self.replica.bury()
        finally:
            self._place.close()

    def _tell(self, steps: int, events: int) -> None:
        self.progress = steps, events
