"""Command lines of repro-audit in forks of one process that has imported torch, once for all.

Each audit, and each of its runs, is a process of its own, as ever; what they are spared is the
start of the interpreter and its imports, most of the time that a small audit takes. The process
that is forked never runs an operator, so every run finds torch as an import leaves it. What is read
when an interpreter or torch starts (`PYTHONHASHSEED`, the number of threads: one) is the same for
all.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Where other work shares the cores, threads that wait for one another take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch._dynamo
import torch.utils.data

from repro_audit import capture, cli, engine
from repro_audit.audit import run_audit
from repro_audit.cli import run as _run
from repro_audit.control import manifest, seeds
from repro_audit.replicate import child, launch

# What the forked processes find imported.
PRELOADED = (np, torch, torch._dynamo, capture, engine, manifest, seeds, run_audit, _run)
# What is here now is never garbage: a fork that looked for it would copy all of it.
gc.freeze()


@dataclass
class Forked:
    """A forked process, as `launch` uses a `Popen`."""

    pid: int

    def wait(self) -> int:
        """Reap it: its exit code, or the negative of the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def command_line(words: list[str], *, cwd: Path, env: dict[str, str], out: Path, err: Path) -> int:
    """Run `repro-audit WORDS` in a fork: its exit code. `env` is added to the environment."""

    def supervise() -> None:
        launch._start = _start  # type: ignore[assignment]
        cli.main(words)

    return _fork(supervise, cwd, {**os.environ, **env}, out, err).wait()


def program(words: list[str], *, cwd: Path, env: dict[str, str], out: Path, err: Path) -> int:
    """Run the program `WORDS` in a fork, unobserved: its exit code."""
    from repro_audit.model import Target
    from repro_audit.replicate import runner

    def run() -> None:
        runner.run_script(Target("script", words[0], args=tuple(words[1:])))

    return _fork(run, cwd, {**os.environ, **env}, out, err).wait()


def _start(
    command: list[str],
    cwd: Path | None,
    environment: dict[str, str],
    out: Path,
    err: Path,
    shared: tuple[int, ...],
) -> Forked:
    """What `launch` starts its runs with. A fork has all descriptors, the `shared` ones too."""
    _, flag, module, plan = command
    assert (flag, module) == ("-m", child.__name__), command

    def run() -> None:
        sys.argv = [str(child.__file__), plan]
        sys.exit(child.main())

    return _fork(run, Path.cwd() if cwd is None else cwd, environment, out, err)


def _fork(
    what: Callable[[], None], cwd: Path, environment: dict[str, str], out: Path, err: Path
) -> Forked:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        os.setsid()
        _redirect(out, err)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        try:
            what()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _redirect(out: Path, err: Path) -> None:
    """Give this process files for its standard streams, in place of those it was forked with."""
    with Path(os.devnull).open("rb") as nothing, out.open("wb") as one, err.open("wb") as other:
        os.dup2(nothing.fileno(), 0)
        os.dup2(one.fileno(), 1)
        os.dup2(other.fileno(), 2)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
