"""The recording of one training, as callbacks of training frameworks make it."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from repro_audit.audit.recording import Capture, Recording, ensure_options, record
from repro_audit.errors import InterruptedRunError, UsageError
from repro_audit.integrations.replicas import check_replicas
from repro_audit.model import Level

if TYPE_CHECKING:
    import torch


class TrainingRecording:
    """What begins, counts and ends a recording where a framework tells of its training.

    Arguments are those of `repro_audit.record`; with `replicas_every` ranks are compared after so
    many steps each (`repro_audit.check_replicas`), where there are several. Raises UsageError for
    less than one, and for a `level`, `capture` or `budget` that `record` refuses.
    """

    # A training may end by an exception that nobody tells of: the next one finds it here.
    _open: ClassVar[TrainingRecording | None] = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: Level = "ops",
        capture: Capture = "sample",
        budget: int | None = None,
        force: bool = False,
        replicas_every: int | None = None,
    ) -> None:
        ensure_options(level, capture, budget)
        if replicas_every is not None and replicas_every < 1:
            raise UsageError(
                f"replicas_every={replicas_every} compares ranks at no step; 100 does at every "
                "hundredth"
            )
        self._path = Path(path)
        self._level: Level = level
        self._capture: Capture = capture
        self._budget = budget
        self._force = force
        self._replicas_every = replicas_every
        self._recording: Recording | None = None
        self._ranks = 1
        self._steps = 0

    def begin(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        rank: int,
        ranks: int,
    ) -> None:
        """Begin to record; of several ranks each into a file of its own (`run.rank1.audit`).

        One that was left open is ended first, as ended by an exception. Raises as
        `repro_audit.record` does.
        """
        if TrainingRecording._open is not None:
            TrainingRecording._open.end(_unended())
        path = self._path
        if ranks > 1:
            path = path.with_name(f"{path.stem}.rank{rank}{path.suffix}")
        recording = record(
            path,
            model=model,
            optimizer=optimizers[0] if optimizers else None,
            level=self._level,
            capture=self._capture,
            budget=self._budget,
            force=self._force,
        )
        recording.__enter__()
        self._recording, self._ranks, self._steps = recording, ranks, 0
        TrainingRecording._open = self
        atexit.register(self._at_exit)

    def step(self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """End a step here. Raises as `repro_audit.check_replicas` does, where it is its turn."""
        if self._recording is None:
            return
        self._recording.step()
        self._steps += 1
        if self._replicas_every and self._ranks > 1 and self._steps % self._replicas_every == 0:
            try:
                check_replicas(model, *optimizers)
            except Exception as error:
                self.end(error)
                raise

    def end(self, error: BaseException | None = None) -> None:
        """End the recording, as one that ends by `error` if there is one. Idempotent."""
        recording = self._recording
        if recording is None:
            return
        self._recording = TrainingRecording._open = None
        atexit.unregister(self._at_exit)
        recording.__exit__(None if error is None else type(error), error, None)

    def close(self) -> None:
        """End the recording where the training did not: as one that ends by an exception."""
        self.end(sys.exc_info()[1] or _unended())

    def _at_exit(self) -> None:
        # What the interpreter has just told the traceback of.
        self.end(getattr(sys, "last_value", None) or _unended())


def _unended() -> InterruptedRunError:
    return InterruptedRunError("the training did not come to its end")
