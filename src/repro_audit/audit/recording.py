"""One run's trace, to carry away: from the command line, or around a training loop."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from traceback import format_exception_only
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

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

# What is said of one that is not put where it was to go.
_KEPT = "this recording is whole, and stays as"


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
    UsageError where `output` exists and `force` is not given, else as the run does. Where it exists
    by the run's end alone the trace is kept beside it.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists; --force overwrites it")
    partial = _partial(output)
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
    except BaseException:
        _remove(partial)
        raise
    if output.exists() and not force:
        raise UsageError(f"{output} exists by now; {_KEPT} {partial}")
    shutil.rmtree(folder_of(output), ignore_errors=True)
    if folder_of(partial).exists():
        folder_of(partial).replace(folder_of(output))
    partial.replace(output)
    manifest = {**finished.info.manifest, "steps": finished.trace.steps}
    return replace(finished.info, trace=str(output), manifest=manifest)


def _partial(place: Path) -> Path:
    """Where a recording is until it is whole: others may be about to write the same one."""
    return place.with_name(f"{place.name}.{os.getpid()}.partial")


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
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
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
    step; an optimizer's, or those of several, after each of its steps. A relative `path` is of the
    directory that the program is in now. Seeds and switches are left as they are; a fork that
    leaves the block leaves the recording to its parent. Costs some microseconds an op and one read
    of what it wrote; at level `modules` a module instead of an op. `capture` says what is kept of
    tensors beside their digests: of each output 512 elements ("sample"), all of it up to `budget`
    bytes together ("full"; 4 GiB if not told), or nothing ("none").

    Raises UsageError where `path` is a directory or in none, or exists and `force` is not given;
    for an unknown `level` or `capture`, a `budget` that is no number of bytes or is given to
    another `capture`, and what is no model or optimizer; and where a recording is under way. The
    block's end raises it where something is at `path` by then, and keeps the recording beside it;
    TraceError where there was no room to write, and keeps nothing.
    """
    ensure_options(level, capture, budget)
    _ensure_trained(model, optimizer)
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


def ensure_level(level: str) -> None:
    """Raise UsageError for what is no level."""
    if level not in get_args(Level):
        raise UsageError(f"{level!r} is no level; it is {' or '.join(get_args(Level))}")


def ensure_options(level: str, capture: str, budget: object) -> None:
    """Raise UsageError for what no recording can be asked for."""
    ensure_level(level)
    if capture not in get_args(Capture):
        raise UsageError(f"capture={capture!r} keeps nothing; it is {', '.join(get_args(Capture))}")
    if budget is None:
        return
    if capture != "full":
        raise UsageError('a budget limits what capture="full" keeps: give both, or neither')
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
        raise UsageError(f"budget={budget!r} is no number of bytes, such as 4 << 30")


def ensure_place(place: Path, name: Path, *, force: bool) -> None:
    """Raise UsageError where no recording can be put at `place`, which its user calls `name`."""
    if place.is_dir():
        raise UsageError(f"cannot write {name}: it is a directory; name a file in it")
    if place.exists() and not force:
        raise UsageError(f"{name} exists; force=True overwrites it")
    if not place.parent.is_dir():
        raise UsageError(f"there is no directory {name.parent}; make it first")


def _ensure_trained(model: object, optimizer: object) -> None:
    if model is None and optimizer is None:
        return
    import torch

    if model is not None and not isinstance(model, torch.nn.Module):
        raise UsageError(
            f"a {type(model).__name__} is no model to record; several are one in a "
            "torch.nn.ModuleList"
        )
    for one in _listed(optimizer):
        # What wraps one, such as a sharded one, need not be a torch.optim.Optimizer itself.
        if not hasattr(one, "param_groups"):
            raise UsageError(
                f"a {type(one).__name__} is no optimizer; give a torch.optim.Optimizer, or a list "
                "of several"
            )


def _listed(optimizer: Any) -> Sequence[Any]:
    if optimizer is None:
        return ()
    return optimizer if isinstance(optimizer, (list, tuple)) else (optimizer,)


def kept_of(capture: Capture, budget: int) -> tuple[int, int]:
    """Elements of each output, and bytes of outputs in all, that `capture` keeps."""
    return (0 if capture == "none" else SAMPLES), (budget if capture == "full" else 0)


class Recording:
    """A recording under way; a context. The file appears whole at its end, also after an error.

    Where it is `automatic` steps are counted by what the program does, as in an audit.
    """

    # The one of this process.
    under_way: ClassVar[Recording | None] = None

    def __init__(
        self,
        path: Path,
        *,
        model: torch.nn.Module | None,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None,
        level: Level,
        samples: int,
        budget: int,
        force: bool,
        automatic: bool = False,
    ) -> None:
        self._path = path
        # The program may change its directory before the end.
        self._place = path.absolute()
        self._force = force
        ensure_place(self._place, path, force=force)
        self._partial = _partial(self._place)
        self._process = os.getpid()
        self._model = model
        self._stepped = bool(_listed(optimizer))
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
        if Recording.under_way is not None:
            raise UsageError(
                "a recording is under way in this process, "
                f"{Recording.under_way._path}; end it first"
            )
        ensure_place(self._place, self._path, force=self._force)
        self._partial, self._process = _partial(self._place), os.getpid()
        try:
            self._begin()
        except BaseException:
            self._undo()
            raise
        return self

    def _begin(self) -> None:
        from repro_audit.capture import Recorder

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
        Recording.under_way = self
        if "numpy.random" not in sys.modules:
            # NumPy imports it when it is first used.
            _await_numpy()
        if self._model is not None:
            self._recorder.weights.weigh(self._model)

    def _undo(self) -> None:
        """Let go of the program, and of what was written."""
        with ExitStack() as undone:
            undone.callback(_remove, self._partial)
            undone.callback(self._forget)
            if self._writer is not None:
                undone.callback(self._writer.drop)
            if self._recorder is not None:
                undone.callback(self._recorder.stop, at_once=True)

    def _forget(self) -> None:
        Recording.under_way = self._recorder = self._writer = None

    def numpy_imported(self) -> None:
        """NumPy's generators are there from now on."""
        if self._process == os.getpid():
            self._recorder.numpy_imported()

    def step(self) -> None:
        """End a step here. Raises UsageError outside the block."""
        if self._recorder is None:
            raise UsageError("a step ends within the recording's block: with record(...) as it")
        if self._model is not None and not self._stepped:
            self._recorder.weights.weigh(self._model)
        self._recorder.end_step()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process != os.getpid():
            # In a fork it is the parent's.
            self._forget()
            return
        # As a traceback's last line has it: the exception's own str() may raise.
        told = "" if kind is None else "".join(format_exception_only(kind, error)).strip()
        try:
            self._recorder.stop()
            # What is imported from here on is no more the program's.
            Recording.under_way = None
            self._close(kind, told)
        except BaseException:
            self._undo()
            raise
        self._forget()
        try:
            ensure_place(self._place, self._path, force=self._force)
        except UsageError as refused:
            kept = self._path.with_name(self._partial.name)
            raise UsageError(f"{refused}; {_KEPT} {kept}") from error
        self._partial.replace(self._place)

    def _close(self, kind: type[BaseException] | None, told: str) -> None:
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


@functools.cache
def _await_numpy() -> None:
    """Tell whichever recording is under way once NumPy's generators are there."""

    def told(numpy: Any) -> None:
        if Recording.under_way is not None:
            Recording.under_way.numpy_imported()

    when_imported("numpy.random", told, in_forks=True)
