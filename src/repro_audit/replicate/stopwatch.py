"""The times of a program's steps, where nothing observes it: what a step costs."""

from __future__ import annotations

import importlib
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Steps that a model is driven for when it is timed: the first ones compile and warm up.
TIMED = 12
_WARM_UP = 2


class StopwatchExit(SystemExit):
    """Raised in a program where the last step that is to be timed has ended."""


class Stopwatch:
    """Notes when steps end; of a program that drives itself, when its first optimizer has stepped.

    Accelerators that the program uses are waited for before each note. `steps` ends such a program
    after so many. The notes go to `path` as a JSON list of seconds.
    """

    def __init__(self, path: str, steps: int | None) -> None:
        self._path = Path(path)
        self._steps = steps
        self._optimizer: Any = None
        self._times: list[float] = []
        self.limit_reached = False

    def stamp(self) -> None:
        """Note that a step begins, or that the last one has ended."""
        torch = sys.modules.get("torch")
        if torch is not None:
            _wait(torch)
        self._times.append(time.perf_counter())

    def install(self) -> None:
        """Note each step of the first optimizer that makes one. Imports torch's optimizers."""
        # Now: an import takes time that would be the first step's.
        importlib.import_module("repro_audit.engine")
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(self._stepped)

    def write(self) -> None:
        """Leave what was noted."""
        self._path.write_text(json.dumps(self._times), encoding="utf-8")

    def _stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._optimizer is None:
            self._optimizer = optimizer
        if optimizer is not self._optimizer or self.limit_reached:
            return
        self.stamp()
        if self._steps is not None and len(self._times) >= self._steps:
            self.limit_reached = True
            raise StopwatchExit(0)


def _wait(torch: Any) -> None:
    from repro_audit import engine

    # Inside the capture of a graph that would end the capture.
    if engine.capturing():
        return
    for kind in engine.accelerators_in_use():
        module = getattr(torch, kind)
        if hasattr(module, "synchronize"):
            module.synchronize()


def step_seconds(path: Path) -> float | None:
    """The median time of a step, the first two left out where there are more; None without any."""
    times = json.loads(path.read_text(encoding="utf-8"))
    each = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(each[_WARM_UP:] or each) if each else None
