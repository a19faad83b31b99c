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

import faulthandler
import json
import os
import signal
import threading
import traceback
from pathlib import Path

from repro_audit.errors import EXIT_INTERRUPTED, EXIT_USAGE, UsageError
from repro_audit.model import Plan
from repro_audit.replicate import driver, ours, runner
from repro_audit.replicate.lineage import VARIABLE, Member, interpreter
from repro_audit.replicate.plan import plan_from_json
from repro_audit.replicate.run import Run


def execute(run: Run) -> tuple[str, int, str | None]:
    """Run the program: (outcome, exit code, error)."""
    outcome, code, error = "finished", 0, None
    try:
        try:
            _run_target(run)
        finally:
            _join_threads(run)
    except SystemExit as exit_request:
        outcome, code = _exited(run, exit_request)
    except UsageError as wrong:
        ours.leave(run.plan, wrong, EXIT_USAGE)
        outcome, code, error = "usage", EXIT_USAGE, str(wrong)
    except KeyboardInterrupt as raised:
        runner.print_exception(raised)
        outcome, code, error = "interrupted", EXIT_INTERRUPTED, "KeyboardInterrupt"
    except BaseException as raised:
        if runner.is_ours(raised):
            run.end(raised)
        runner.print_exception(raised)
        outcome, code = "raised", 1
        # As a traceback's last line has it: the exception's own str() may raise.
        error = "".join(traceback.format_exception_only(raised)).strip()
    return outcome, code, error


def _run_target(run: Run) -> None:
    target = run.plan.target
    if target.kind == "script":
        runner.run_script(target)
    elif target.kind == "module":
        runner.run_module(target)
    else:
        driver.run_model(run.plan, None if run.stopwatch is None else run.stopwatch.stamp)


def _exited(run: Run, request: SystemExit) -> tuple[str, int]:
    if run.stopped_at_limit:
        return "stopped", 0
    if request.code is None or isinstance(request.code, int):
        code = request.code or 0
    else:
        print(request.code, file=sys.stderr)
        code = 1
    return ("exited" if code else "finished"), code


def _join_threads(run: Run) -> None:
    # Python waits for these before it ends; what they do belongs to the run.
    if run.stopped_at_limit:
        return
    # Pools keep their threads waiting until Python, about to end, tells them that it is.
    for tell in reversed(getattr(threading, "_threading_atexits", [])):
        tell()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _pin_addresses(plan: Plan) -> None:
    """Start again where addresses are to be the same in every run."""
    if "no-aslr" not in plan.pins:
        return
    from repro_audit.control.pins import without_address_randomisation

    try:
        without_address_randomisation()
    except OSError as error:
        wrong = UsageError(f"Address randomisation cannot be turned off here: {error}.")
        ours.leave(plan, wrong, EXIT_USAGE)
        sys.exit(EXIT_USAGE)


def _choose_core(plan: Plan) -> None:
    """Run on the core that is asked for, before there is a thread to be moved there."""
    if not plan.held:
        return
    from repro_audit.control import axes

    try:
        axes.begin(plan.held)
    except OSError as error:
        wrong = UsageError(f"{', '.join(plan.held)} cannot be held here: {error}.")
        ours.leave(plan, wrong, EXIT_USAGE)
        sys.exit(EXIT_USAGE)


def _member(plan: Plan, path: Path) -> Member:
    return Member(
        plan=str(path),
        log=str(Path(plan.progress).with_suffix(".processes")),
        bases=(str(Path.cwd()), str(Path(plan.target.path or ".").absolute().parent)),
        group=os.getpgrp(),
        interpreter=interpreter(),
    )


def main() -> int:
    """Be the run that the plan named on the command line describes."""
    faulthandler.enable()
    path = Path(sys.argv[1])
    plan = plan_from_json(json.loads(path.read_text(encoding="utf-8")))
    _pin_addresses(plan)
    _choose_core(plan)
    os.environ.pop(VARIABLE, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a shell's background job; but it is by SIGINT that a run is told to end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Run(plan, _member(plan, path))
    try:
        run.prepare()
    except Exception as failed:
        run.end(failed)
    outcome, code, error = execute(run)
    try:
        run.finish(outcome, code, error)
    except Exception as failed:
        run.end(failed)
    return code


if __name__ == "__main__":
    sys.exit(main())
