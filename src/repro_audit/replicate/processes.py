"""Processes that the program starts: each is told which of the run's it is."""

from __future__ import annotations

import _posixsubprocess
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from repro_audit.control.imports import when_imported
from repro_audit.errors import InconclusiveError
from repro_audit.replicate.lineage import (
    VARIABLE,
    Lineage,
    Member,
    carried,
    member_from,
)

if TYPE_CHECKING:
    from repro_audit.replicate.run import Run

# Programs that run a Python program in processes of their own.
_LAUNCHERS = ("python", "torchrun", "accelerate", "deepspeed")
# Processes that Python and torch start for themselves: they run nothing of the program's.
_INTERNAL = ("multiprocessing.resource_tracker", "torch/_inductor/compile_worker")
_FORK_SERVER = "multiprocessing.forkserver"
# Their batches are events of the process that loads.
_LOADER_WORKERS = "torch.utils.data._utils.worker"
_PIDS_KEPT = 4096
_ENDING = frozenset(
    {signal.SIGABRT, signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM}
)


class Processes:
    """Names what this process starts, and carries the run into it where it is Python.

    Forks go on as what they are named here. Processes that native code starts are not seen; nor is
    the run carried into a Python process that ignores PYTHONPATH, which is said.
    """

    def __init__(self, run: Run, lineage: Lineage) -> None:
        self._run = run
        self._lineage = lineage
        self._local = threading.local()
        # What this process started lately, to know what it is that it ends.
        self._pids: dict[int, Member] = {}

    def install(self) -> None:
        """Begin; lasts for this process and its forks."""
        self._exit = os._exit
        self._execve = os.execve
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._in_parent, after_in_child=self._in_child
        )
        self._replace(os, "fork", self._forking)
        self._replace(os, "_exit", self._exiting)
        self._replace(os, "execve", self._becoming)
        self._replace(os, "execv", self._becoming)
        self._replace(os, "kill", self._killing)
        self._replace(os, "system", self._by_shell)
        for name in ("posix_spawn", "posix_spawnp"):
            self._replace(os, name, self._spawning)
        self._replace(_posixsubprocess, "fork_exec", self._starting)
        self._replace(subprocess, "_fork_exec", self._starting)
        when_imported("multiprocessing.process", self._multiprocessing, in_forks=True)

    @staticmethod
    def _replace(owner: Any, name: str, wrapping: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(wrapping(original)))

    # -- forks ----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._local.forked = self._lineage.starting or self._lineage.next()
        self._run.clock()
        self._run.hold()

    def _in_parent(self) -> None:
        self._run.release()

    def _in_child(self) -> None:
        self._pids.clear()
        self._run.forked(self._local.forked)

    def _forking(self, fork: Any) -> Any:
        def observed_fork() -> int:
            pid: int = fork()
            if pid:
                self._note(pid, self._local.forked)
            return pid

        return observed_fork

    # -- other programs -------------------------------------------------------------------------

    def _starting(self, fork_exec: Any) -> Any:
        def observed_start(args: Any, executables: Any, *rest: Any) -> int:
            close_fds, pass_fds, cwd, environment, *others = rest
            member = self._begins(executables[0], args)
            if member is not None:
                environment = _listed(carried(member, _mapped(environment)))
            pid: int = fork_exec(args, executables, close_fds, pass_fds, cwd, environment, *others)
            if member is not None:
                self._note(pid, member)
            return pid

        return observed_start

    def _spawning(self, spawn: Any) -> Any:
        def observed_spawn(path: Any, args: Any, env: Any, **options: Any) -> int:
            member = self._begins(path, args)
            if member is not None:
                env = carried(member, _mapped(env))
            pid: int = spawn(path, args, env, **options)
            if member is not None:
                self._note(pid, member)
            return pid

        return observed_spawn

    def _by_shell(self, system: Any) -> Any:
        def observed_system(command: Any) -> int:
            # It hands on the environment as it is.
            before = dict(os.environ)
            os.environ.update(carried(self._lineage.next("sh"), before))
            try:
                status: int = system(command)
            finally:
                for name in (VARIABLE, "PYTHONPATH"):
                    if name in before:
                        os.environ[name] = before[name]
                    else:
                        del os.environ[name]
            return status

        return observed_system

    def _becoming(self, execute: Any) -> Any:
        def observed_exec(path: Any, args: Any, env: Any = None) -> None:
            self._exec(path, args, env)

        return observed_exec

    def _exec(self, path: Any, args: Any, env: Any) -> None:
        """Become another program: what this one did ends here, unless there is no other."""
        environment = _mapped(env)
        if not isinstance(path, str | bytes | os.PathLike) or not os.access(path, os.X_OK):
            self._execve(path, args, environment)
        member = self._lineage.member
        if self._run.leave("exec"):
            member = self._lineage.next()
        try:
            self._execve(path, args, carried(member, environment))
        except OSError as error:
            name = os.fsdecode(path)
            self._run.end(InconclusiveError(f"the program went on after exec of {name}: {error}"))

    def _begins(self, program: Any, args: Sequence[Any]) -> Member | None:
        """The member that a command is to be, told to the log if it is Python."""
        words = [os.fsdecode(word) for word in args]
        if any(name in word for name in _INTERNAL for word in words):
            return None
        name = os.path.basename(os.fsdecode(program))  # noqa: PTH119 - as an argument may be bytes
        self._run.clock()
        if any(_FORK_SERVER in word for word in words):
            return self._lineage.next("forkserver")
        if not name.startswith(_LAUNCHERS):
            return self._lineage.next(name)
        member = self._lineage.starting or self._lineage.next()
        self._run.tell("started", member)
        return member

    # -- multiprocessing ------------------------------------------------------------------------

    def _multiprocessing(self, module: Any) -> None:
        self._replace(module.BaseProcess, "start", self._process_starting)
        self._replace(module.BaseProcess, "_bootstrap", self._process_begun)

    def _process_starting(self, start: Any) -> Any:
        def observed_start(process: Any) -> None:
            member = self._run.pools.member_of(process, self._lineage)
            if getattr(process._target, "__module__", None) == _LOADER_WORKERS:
                member = replace(member, observed=False)
                self._run.tell("loader", member)
            self._run.clock()
            # It goes to the process with everything else, whichever way that is started.
            process._repro_audit = asdict(member)
            try:
                with self._lineage.start(member):
                    start(process)
            finally:
                del process._repro_audit
            if process.pid is not None:
                self._note(process.pid, member)

        return observed_start

    def _process_begun(self, bootstrap: Any) -> Any:
        def observed_bootstrap(process: Any, *args: Any, **kwargs: Any) -> Any:
            told = process.__dict__.pop("_repro_audit", None)
            if told is not None:
                self._run.become(member_from(told))
            return bootstrap(process, *args, **kwargs)

        return observed_bootstrap

    # -- ends -----------------------------------------------------------------------------------

    def _exiting(self, leave: Any) -> Any:
        def observed_exit(status: int) -> None:
            self._run.leave("_exit", status)
            leave(status)

        return observed_exit

    def _killing(self, kill: Any) -> Any:
        def observed_kill(pid: int, number: int) -> None:
            member = self._pids.get(pid)
            if member is not None and number in _ENDING:
                self._run.tell("ended", member)
            kill(pid, number)

        return observed_kill

    def _note(self, pid: int, member: Member) -> None:
        self._pids[pid] = member
        if len(self._pids) > _PIDS_KEPT:
            del self._pids[next(iter(self._pids))]


def _mapped(environment: Any) -> dict[str, str]:
    """An environment as any function that starts a process takes it; None is this process's."""
    if environment is None:
        return dict(os.environ)
    if isinstance(environment, Mapping):
        pairs = list(environment.items())
    else:
        pairs = [bytes(entry).partition(b"=")[::2] for entry in environment]
    return {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}


def _listed(environment: Mapping[str, str]) -> list[bytes]:
    return [os.fsencode(f"{name}={value}") for name, value in environment.items()]
