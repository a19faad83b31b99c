"""A function called again and again from the same seeds: does it do the same?"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from repro_audit.audit.recording import ensure_level, ensure_place
from repro_audit.control.seeds import seed_everything
from repro_audit.errors import InconclusiveError, NotReproducibleError, UsageError
from repro_audit.integrations.calls import (
    WIDTH,
    compared_calls,
    in_turn,
    name_of,
    record_call,
)
from repro_audit.integrations.generators import left_alone
from repro_audit.model import Audit, Level, Tolerance
from repro_audit.model.codes import KIND_RNG
from repro_audit.trace import Trace

_OUTLIVES = "what is made outside the function outlives a call"
_INSIDE = "make models, optimizers, generators and caches inside it"


def check_reproducible(
    function: Callable[[], object],
    *,
    runs: int = 2,
    seed: int = 0,
    level: Level = "ops",
    baseline: str | os.PathLike[str] | None = None,
    tolerance: Tolerance | None = None,
) -> Audit:
    """Call `function` so many times, each from the same seeds; raise where a tensor differs.

    A call in which modules are imported is made once more, and that one counts.

    ```
    def train():
        model = Net()
        for batch in batches():
            step(model, batch)

    repro_audit.check_reproducible(train)
    ```
    All calls are made in this process, one after the other: what outlives a call (a model made
    outside, a cache) is another call's beginning, and the hash seed is the same, so that an order
    of sets is not seen to vary; `repro-audit run` starts processes. The states of Python's, NumPy's
    and torch's generators are put back afterwards.

    `baseline` is a recording (`record_baseline`) that the first call must also agree with, bit by
    bit or within `tolerance`. Costs what the calls do, some microseconds an op, and one read of
    what each op writes; at `level` modules, of what modules return. Returns the comparison.

    Raises NotReproducibleError, an AssertionError whose message is the report, where they differ;
    InconclusiveError where nothing was computed; UsageError for fewer than two runs without a
    baseline, a baseline that is not there or of another level, a tolerance without one, a function
    that returns a generator or a coroutine, an unknown level, or within another recording.
    """
    ensure_level(level)
    if not isinstance(runs, int):
        raise UsageError(f"runs={runs!r} is no number of runs")
    if tolerance is not None:
        _ensure_tolerance(tolerance)
    if tolerance is not None and baseline is None:
        raise UsageError("a tolerance is for a baseline: calls in one process are alike bit by bit")
    if runs < (1 if baseline is not None else 2):
        raise UsageError("one run compares with nothing: runs=2 at least, or a baseline")
    if baseline is not None and not Path(baseline).is_file():
        raise UsageError(
            f"there is no baseline {os.fspath(baseline)}; repro_audit.record_baseline() writes one"
        )
    if baseline is not None:
        _check_level(Path(baseline), level)
    name = name_of(function)
    with _folder() as folder, left_alone():
        traces = [folder / f"run-{n}" for n in range(1, runs + 1)]
        for trace in traces:
            _record(function, trace, level, seed)
        audit = None
        if runs > 1:
            audit = in_turn(compared_calls(name, traces), _OUTLIVES, _INSIDE)
        if baseline is not None and (audit is None or audit.verdict == "identical"):
            audit = compared_calls(name, [Path(baseline), traces[0]], tolerance)
        assert audit is not None
        # It draws random numbers when it is imported.
        from repro_audit.report.terminal import render_text
    if audit.verdict == "inconclusive":
        raise _nothing(name, level)
    if audit.verdict not in {"identical", "within-tolerance"}:
        raise NotReproducibleError(f"{name}\n{render_text(audit, WIDTH)}", audit)
    return audit


def record_baseline(
    function: Callable[[], object],
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    level: Level = "ops",
    force: bool = False,
) -> None:
    """Call `function` once from these seeds and leave a recording of it at `path`.

    Twice where modules are imported in the first call: of the second, then.

    To be committed, and given to `check_reproducible`. Where the function raises, or computes
    nothing (InconclusiveError), what was there stays. Raises UsageError where `path` exists and
    `force` is not given, or its directory is missing, and for an unknown level.
    """
    ensure_level(level)
    # The function may go to another directory.
    place = Path(path).absolute()
    ensure_place(place, Path(path), force=force)
    process = os.getpid()
    # Beside it, and of this process: others may write the same baseline.
    partial = place.with_name(f"{place.name}.{process}")
    try:
        with left_alone():
            _record(function, partial, level, seed)
        with contextlib.closing(Trace.open(partial)) as trace:
            if all(kind == KIND_RNG for kind in trace.kind):
                raise _nothing(name_of(function), level)
        partial.replace(place)
    finally:
        # In a fork of the function's it is the parent's.
        if os.getpid() == process:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A directory for the block; forks that leave the block, or end in it, leave it there."""
    process = os.getpid()
    folder = tempfile.mkdtemp(prefix="repro-audit-")
    try:
        yield Path(folder)
    finally:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)


def _record(function: Callable[[], object], path: Path, level: Level, seed: int) -> None:
    """Record a call from these seeds; where modules are imported in it, the next one.

    What is computed as a module is imported belongs to the first call of a process alone.
    """
    imported = False

    def watched() -> object:
        nonlocal imported
        known = set(sys.modules)
        try:
            return function()
        finally:
            imported = not known.issuperset(sys.modules)

    seed_everything(seed)
    record_call(watched, path, level, force=True)
    if imported:
        seed_everything(seed)
        record_call(watched, path, level, force=True)


def _nothing(name: str, level: Level) -> InconclusiveError:
    way_out = "" if level == "ops" else "; level='ops' sees what no module computes"
    return InconclusiveError(f"{name} computed nothing that could be compared{way_out}")


def _ensure_tolerance(tolerance: object) -> None:
    ulp = tolerance.ulp if isinstance(tolerance, Tolerance) else -1
    if ulp is not None and (not isinstance(ulp, int) or isinstance(ulp, bool) or ulp < 0):
        raise UsageError(
            f"{tolerance!r} is no tolerance; give Tolerance(ulp=4), or Tolerance(rounding=True)"
        )


def _check_level(baseline: Path, level: Level) -> None:
    with contextlib.closing(Trace.open(baseline)) as trace:
        recorded = trace.plan.get("level", level)
    if recorded != level:
        raise UsageError(f"{baseline} was recorded at level {recorded!r}; ask for that one")
