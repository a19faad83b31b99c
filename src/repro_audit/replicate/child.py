"""One run, inside its own process: `python -m repro_audit.replicate.child PLAN.json`.

Composes control, capture and trace around the program. torch is imported by the program, never
before it: a program may set the environment first. Capture starts the moment torch is there; if it
cannot, the run fails rather than go on unobserved.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory, put there by `-m`: no file in it may stand in for a module of ours.
    del sys.path[0]

import contextlib
import faulthandler
import json
import mmap
import os
import signal
import struct
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from repro_audit.control import perturb, seeds, switches
from repro_audit.control.imports import when_imported
from repro_audit.control.manifest import collect
from repro_audit.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    ReproAuditError,
    TraceError,
    UsageError,
)
from repro_audit.model import Plan
from repro_audit.replicate import driver, ours, runner
from repro_audit.replicate.endstate import EndState
from repro_audit.replicate.plan import plan_from_json, plan_to_json
from repro_audit.replicate.processes import Processes
from repro_audit.replicate.reads import Reads
from repro_audit.trace import Writer


class Progress:
    """Two counters in a file that the supervising process reads while the program runs."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)

    def __call__(self, steps: int, events: int) -> None:
        struct.pack_into("<QQ", self._map, 0, steps, events)


class RunTrace(Writer):
    """A run's trace. Where it cannot be written the run ends, whatever the program would catch."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        super().__init__(Path(plan.trace), run=plan.run, plan=plan_to_json(plan))

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """As `Writer` does."""
        with self._written():
            super().payload(event, role, position, view)

    def flush(self) -> None:
        """As `Writer` does."""
        with self._written():
            super().flush()

    def close(self, *, manifest: Mapping[str, Any], closing: Mapping[str, Any]) -> None:
        """As `Writer` does."""
        with self._written():
            super().close(manifest=manifest, closing=closing)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except TraceError as error:
            if not Path(self._plan.trace).exists():
                _end(self._plan, ours.removed(self._plan))
            way_out = "Make room there, or end the program earlier with --steps N."
            _end(self._plan, UsageError(f"{error}. {way_out}"))


def _end(plan: Plan, error: BaseException) -> NoReturn:
    """End the process for a reason that is not the program's, and leave word of it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    code = error.exit_code if isinstance(error, ReproAuditError) else EXIT_INTERNAL
    with contextlib.suppress(OSError, ValueError):
        if not isinstance(error, ReproAuditError):
            traceback.print_exception(error)
        if not ours.leave(plan, error, code):
            print(f"repro-audit: {error}", file=sys.stderr)
        sys.stderr.flush()
    os._exit(code)


class Run:
    """The life of one run, from its plan to its closing record."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # The program may change its directory before torch is there.
        self.bases = (str(Path.cwd()), str(Path(plan.target.path or ".").absolute().parent))
        self.recorder: Any = None
        self.writer: Writer | None = None
        self._process = os.getpid()
        self.end_state = EndState() if plan.end_state else None
        self.processes = Processes()
        self.reads = Reads(since=plan.since, own=str(Path(plan.progress).parent))

    def prepare(self) -> None:
        """Set the controls, and arm capture for the moment torch is imported."""
        plan = self.plan
        if plan.observe:
            self.writer = RunTrace(plan)
        if plan.mode != "as-is":
            seeds.seed_everything(plan.seed)
        if plan.poison:
            perturb.reverse_listings()
        self.reads.install()
        if plan.observe:
            self.processes.install()
        when_imported("torch", self._torch_imported)
        when_imported("numpy.random", self._numpy_imported)

    def _torch_imported(self, torch: Any) -> None:
        try:
            self._start(torch)
        except Exception as error:
            _end(self.plan, error)

    def _start(self, torch: Any) -> None:
        plan = self.plan
        if plan.mode == "deterministic":
            switches.apply_deterministic(torch)
        if self.end_state is not None:
            self.end_state.install()
        if self.writer is None:
            return
        from repro_audit.capture import Recorder

        self.recorder = Recorder(
            self.writer,
            bases=self.bases,
            steps=plan.steps,
            optimizer_ops=plan.optimizer_ops,
            capture=plan.capture,
            poison=plan.poison,
            on_progress=Progress(plan.progress),
        )
        self.recorder.start()

    def _numpy_imported(self, numpy: Any) -> None:
        if self.recorder is not None:
            self.recorder.numpy_imported()

    def execute(self) -> tuple[str, int, str | None]:
        """Run the program: (outcome, exit code, error)."""
        outcome, code, error = "finished", 0, None
        try:
            try:
                self._main()
            finally:
                self._join_threads()
        except SystemExit as exit_request:
            outcome, code = self._exited(exit_request)
        except UsageError as wrong:
            ours.leave(self.plan, wrong, EXIT_USAGE)
            outcome, code, error = "usage", EXIT_USAGE, str(wrong)
        except KeyboardInterrupt as raised:
            runner.print_exception(raised)
            outcome, code, error = "interrupted", EXIT_INTERRUPTED, "KeyboardInterrupt"
        except BaseException as raised:
            runner.print_exception(raised)
            outcome, code = "raised", 1
            # As a traceback's last line has it: the exception's own str() may raise.
            error = "".join(traceback.format_exception_only(raised)).strip()
        return outcome, code, error

    def finish(self, outcome: str, code: int, error: str | None) -> None:
        """Write the end state, the manifest and the closing record."""
        if os.getpid() != self._process:
            # A fork that came to the program's end: what there is to write is its parent's.
            return
        if self.recorder is not None:
            self.recorder.stop()
        if self.end_state is not None and "torch" in sys.modules:
            self.end_state.write(Path(str(self.plan.end_state)))
        if self.writer is None:
            return
        from repro_audit import engine

        recorder = self.recorder
        with self._where_it_began():
            manifest = collect(self.plan, engine.info())
        self.writer.close(
            manifest=manifest,
            closing={
                "events": recorder.events if recorder is not None else 0,
                "steps": recorder.steps if recorder is not None else 0,
                "outcome": outcome,
                "exit_code": code,
                "error": error,
                "unobserved": dict(recorder.unobserved) if recorder is not None else {},
                "stale_reads": self.reads.stale,
                "processes": self.processes.started,
            },
        )

    def _main(self) -> None:
        target = self.plan.target
        if target.kind == "script":
            runner.run_script(target)
        elif target.kind == "module":
            runner.run_module(target)
        else:
            driver.run_model(target, steps=self.plan.steps, device=self.plan.device)

    def _exited(self, request: SystemExit) -> tuple[str, int]:
        if self.recorder is not None and self.recorder.stopped_at_limit:
            return "stopped", 0
        if request.code is None or isinstance(request.code, int):
            code = request.code or 0
        else:
            print(request.code, file=sys.stderr)
            code = 1
        return ("exited" if code else "finished"), code

    def _join_threads(self) -> None:
        # Python waits for these before it ends; what they do belongs to the run.
        if self.recorder is not None and self.recorder.stopped_at_limit:
            return
        # Pools keep their threads waiting until Python, about to end, tells them that it is.
        for tell in reversed(getattr(threading, "_threading_atexits", [])):
            tell()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()

    @contextlib.contextmanager
    def _where_it_began(self) -> Iterator[None]:
        """The working directory of the start, which the program may have left or removed."""
        # A descriptor leads back to a directory that has no name any more.
        left = os.open(".", os.O_RDONLY)
        try:
            os.chdir(self.bases[0])
            yield
        finally:
            os.fchdir(left)
            os.close(left)


def main() -> int:
    """Be the run that the plan named on the command line describes."""
    faulthandler.enable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a shell's background job; but it is by SIGINT that a run is told to end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    plan = plan_from_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    run = Run(plan)
    try:
        run.prepare()
    except Exception as failed:
        _end(plan, failed)
    outcome, code, error = run.execute()
    try:
        run.finish(outcome, code, error)
    except Exception as failed:
        _end(plan, failed)
    return code


if __name__ == "__main__":
    sys.exit(main())
