"""One run's trace, to carry away: from the command line, or around a training loop."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from traceback import format_exception_only
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from repro_audit import engine
from repro_audit.audit.request import AuditRequest, Progress
from repro_audit.audit.session import Session, no_events
from repro_audit.control.imports import when_imported
from repro_audit.control.manifest import collect
from repro_audit.errors import InconclusiveError, ProgramFailedError, UsageError
from repro_audit.model import Given, Level, Plan, RunInfo, Target
from repro_audit.replicate.plan import plan_to_json
from repro_audit.trace import Trace, Writer, folder_of

if TYPE_CHECKING:
    import torch

# Elements that are kept of each output: 2 KiB of float32.
SAMPLES = 512
# Bytes of outputs that a recording with `--capture full` keeps.
BUDGET = 4 << 30

Capture = Literal["none", "sample", "full"]


def given_from(sources: Mapping[str, Path | None]) -> tuple[Given, ...]:
    """What a run takes from recordings, by what of it from which.

    Raises TraceError for a file that is no whole trace, InconclusiveError for one that kept no
    tensor whole.
    """
    given: list[Given] = []
    for what, path in sources.items():
        if path is None:
            continue
        with closing(Trace.open(path)) as trace:
            if not trace.kept():
                raise InconclusiveError(
                    f"{path} kept no tensor whole. Record it there with --capture full."
                )
        given.append(Given(cast(Any, what), str(path.resolve())))
    return tuple(given)


def record_run(request: AuditRequest, output: Path, force: bool, progress: Progress) -> RunInfo:
    """Run the target once, its output passing through, and leave its trace at `output`.

    The file appears only once the trace is whole; one that was there stays until then. Raises
    UsageError where `output` exists and `force` is not given, else as the run does.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists; --force overwrites it")
    partial = output.with_name(f"{output.name}.partial")
    _remove(partial)
    try:
        with tempfile.TemporaryDirectory(prefix="repro-audit-") as folder:
            session = Session(replace(request, runs=1), Path(folder), progress, echo=True)
            try:
                finished = session.observed("run-1", trace=str(partial.resolve()))
            except ProgramFailedError as error:
                raise _without_words(error) from error
        finished.trace.close()
        reason = no_events(finished)
        if reason is not None:
            raise InconclusiveError(f"{reason}: there is nothing to record")
        shutil.rmtree(folder_of(output), ignore_errors=True)
        if folder_of(partial).exists():
            folder_of(partial).replace(folder_of(output))
        partial.replace(output)
    finally:
        _remove(partial)
    manifest = {**finished.info.manifest, "steps": finished.trace.steps}
    return replace(finished.info, trace=str(output), manifest=manifest)


def _remove(trace: Path) -> None:
    """Remove a trace, what SQLite keeps beside it, and the traces of its processes."""
    trace.unlink(missing_ok=True)
    trace.with_name(f"{trace.name}-journal").unlink(missing_ok=True)
    shutil.rmtree(folder_of(trace), ignore_errors=True)


def _without_words(error: ProgramFailedError) -> ProgramFailedError:
    """The same without what the program printed: it was passed on, and our copy is gone."""
    first, *_, last = str(error).splitlines()
    first = first.removesuffix(":")
    return ProgramFailedError(f"{first}. {last}" if last.startswith("--") else first)


def record(
    path: str | os.PathLike[str],
    *,
    model: torch.nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    level: Level = "ops",
    capture: Capture = "sample",
    budget: int | None = None,
    force: bool = False,
) -> Recording:
    """Record what the block below does, as one trace at `path`, for `repro-audit compare`.

    ```
    with repro_audit.record("run.audit", model=model, optimizer=optimizer) as recording:
        for batch in loader:
            train_step(batch)
            recording.step()
    ```
    `model`'s parameters are recorded at the start and, where no `optimizer` is given, after each
    step; an optimizer's after each of its steps. Seeds and switches are left as they are. Costs
    some microseconds an op and one read of what it wrote; at level `modules` a module instead of an
    op. `capture` says what is kept of tensors beside their digests: of each output 512 elements
    ("sample"), all of it up to `budget` bytes together ("full"; 4 GiB if not told), or nothing
    ("none"). Raises UsageError where `path` is a directory, or exists and `force` is not given,
    where a `budget` is given to another `capture`, and where a recording is under way.
    """
    if budget is not None and capture != "full":
        raise UsageError('a budget limits what capture="full" keeps: give both, or neither')
    samples, whole = kept_of(capture, BUDGET if budget is None else budget)
    return Recording(
        Path(path),
        model=model,
        optimizer=optimizer,
        level=level,
        samples=samples,
        budget=whole,
        force=force,
    )


def kept_of(capture: Capture, budget: int) -> tuple[int, int]:
    """Elements of each output, and bytes of outputs in all, that `capture` keeps."""
    return (0 if capture == "none" else SAMPLES), (budget if capture == "full" else 0)


class Recording:
    """A recording under way; a context. The file appears whole at its end, also after an error.

    Where it is `automatic` steps are counted by what the program does, as in an audit.
    """

    # The one of this process, by its path.
    under_way: ClassVar[Path | None] = None

    def __init__(
        self,
        path: Path,
        *,
        model: torch.nn.Module | None,
        optimizer: torch.optim.Optimizer | None,
        level: Level,
        samples: int,
        budget: int,
        force: bool,
        automatic: bool = False,
    ) -> None:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory; name a file in it")
        if path.exists() and not force:
            raise UsageError(f"{path} exists; force=True overwrites it")
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._model = model
        self._optimizer = optimizer
        target = Target("script", sys.argv[0] if sys.argv else "")
        self._plan = Plan(
            run=path.stem,
            target=target,
            trace=str(path),
            progress="",
            mode="as-is",
            level=level,
            samples=samples,
            budget=budget,
        )
        self._automatic = automatic
        self._recorder: Any = None
        self._writer: Any = None

    def __enter__(self) -> Recording:
        from repro_audit.capture import Recorder

        if Recording.under_way is not None:
            raise UsageError(
                f"a recording is under way in this process, {Recording.under_way}; end it first"
            )
        self._partial.unlink(missing_ok=True)
        self._writer = Writer(self._partial, run=self._plan.run, plan=plan_to_json(self._plan))
        self._recorder = Recorder(
            self._writer,
            bases=(str(Path.cwd()),),
            automatic=self._automatic,
            level=self._plan.level,
            samples=self._plan.samples,
            budget=self._plan.budget,
        )
        self._recorder.start()
        Recording.under_way = self._path
        if "numpy.random" not in sys.modules:
            # NumPy imports it when it is first used.
            when_imported("numpy.random", self._numpy_imported)
        if self._model is not None:
            self._recorder.weights.weigh(self._model)
        return self

    def _numpy_imported(self, numpy: Any) -> None:
        if Recording.under_way is self._path:
            self._recorder.numpy_imported()

    def step(self) -> None:
        """End a step here."""
        if self._model is not None and self._optimizer is None:
            self._recorder.weights.weigh(self._model)
        self._recorder.end_step()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # As a traceback's last line has it: the exception's own str() may raise.
        told = "" if kind is None else "".join(format_exception_only(kind, error)).strip()
        try:
            self._recorder.stop()
        finally:
            Recording.under_way = None
        self._writer.close(
            manifest=collect(self._plan, engine.info()),
            closing={
                "events": self._recorder.events,
                "steps": self._recorder.steps if self._automatic else self._recorder.step,
                "outcome": "finished" if kind is None else "raised",
                "exit_code": 0 if kind is None else 1,
                "error": None if kind is None else told.removeprefix(f"{kind.__module__}."),
                "unobserved": dict(self._recorder.unobserved),
                "unseen": self._recorder.unseen,
                "undrawn": self._recorder.undrawn,
                "stale_reads": [],
            },
        )
        self._partial.replace(self._path)
