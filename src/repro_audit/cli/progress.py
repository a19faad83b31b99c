"""How far an audit is, on standard error: one line a run, gone when the verdict is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from repro_audit.audit.request import Progress


class _Silent:
    def start(self, run: str, position: int, total: int) -> None:
        pass

    def update(self, steps: int, events: int) -> None:
        pass

    def finish(self) -> None:
        pass


class _Lines:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._current = bars.add_task("starting", steps=0, events=0)
        self._started = False

    def start(self, run: str, position: int, total: int) -> None:
        title = f"run {position} of {total}  {run}"
        if self._started:
            self._current = self._bars.add_task(title, steps=0, events=0)
        else:
            self._bars.update(self._current, description=title)
        self._started = True

    def update(self, steps: int, events: int) -> None:
        self._bars.update(self._current, steps=steps, events=events)

    def finish(self) -> None:
        self._bars.update(self._current, total=1, completed=1)
        self._bars.stop_task(self._current)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """A display while the block runs; none where `quiet`, or stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}", markup=False),
        TextColumn("step {task.fields[steps]:,}", justify="right"),
        TextColumn("{task.fields[events]:,} events", justify="right"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Lines(bars)
