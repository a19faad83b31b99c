"""Command lines of repro-audit in forks of one process that has imported torch, once for all.

Each audit, and each of its runs, is a process of its own, as ever; what they are spared is the
start of the interpreter and its imports, most of the time that a small audit takes. The process
that is forked never runs an operator, so every run finds torch as an import leaves it. What is read
when an interpreter or torch starts (`PYTHONHASHSEED`, the number of threads: one) is the same for
all, unless `faithful` is asked for: then a run that has these otherwise is an interpreter of its
own.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import weakref
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
from repro_audit.replicate import child, launch, replay

# What the forked processes find imported.
PRELOADED = (np, torch, torch._dynamo, capture, engine, manifest, seeds, run_audit, _run)
# The modules that runs are, as `python -m` starts them.
_MODULES = (child.__name__, replay.__name__)
# Variables that are read when an interpreter, torch or a library of its starts.
_READ_AT_START = (
    *("ATEN", "CUDA", "KMP", "LD_", "MKL", "OMP", "ONEDNN", "PYTHON", "PYTORCH", "TORCH"),
    "REPRO_AUDIT_ENGINE",
)
# Of these, what is read when it is used; an isolated run has places of its own.
_READ_LATER = {
    *("CUDA_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TORCH_HOME"),
    # A fork sets its threads itself.
    *("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
}
# As this process was started; importing torch adds to it.
_AT_START = dict(
    entry.split("=", 1) for entry in Path("/proc/self/environ").read_text().split("\0") if entry
)
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
    return started(words, cwd=cwd, env={**os.environ, **env}, out=out, err=err).wait()


def started(
    words: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    out: Path,
    err: Path,
    faithful: bool = False,
) -> Forked:
    """Start `repro-audit WORDS` in a fork, whose environment is `env`."""

    def supervise() -> None:
        launch._start = _start_faithfully if faithful else _start  # type: ignore[assignment]
        cli.main(words)

    return _fork(supervise, cwd, env, out, err)


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
    _, flag, name, *words = command
    assert flag == "-m", command
    # There when this returns, as they are with a `Popen`.
    out.write_bytes(b"")
    err.write_bytes(b"")

    def run() -> None:
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = [name, *words]
        del sys.modules[name]
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return _fork(run, Path.cwd() if cwd is None else cwd, environment, out, err)


_start_interpreter = launch._start


def _start_faithfully(
    command: list[str],
    cwd: Path | None,
    environment: dict[str, str],
    out: Path,
    err: Path,
    shared: tuple[int, ...],
) -> Forked | subprocess.Popen[bytes]:
    """As `_start`, but for what an interpreter that is started would find otherwise than here."""
    known = command[1:2] == ["-m"] and command[2] in _MODULES
    start = _start if known and _read_at_start(environment) == _read_at_start(_AT_START) else None
    return (start or _start_interpreter)(command, cwd, environment, out, err, shared)


def _read_at_start(environment: dict[str, str]) -> dict[str, str]:
    """What of an environment counts when a process starts."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) and name not in _READ_LATER
    }


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
        # What the forked process has to see to at its end is not this one's to do.
        weakref.finalize._registry.clear()
        # As an interpreter that starts: generators of their own, and as many threads as are asked.
        random.seed()
        np.random.seed()  # noqa: NPY002
        torch.set_num_threads(int(environment.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
        try:
            what()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
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
