"""Tasks of process pools: which process does one is chance, so each is recorded by its own name."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from repro_audit.control.imports import when_imported
from repro_audit.replicate.lineage import Lineage, Member

if TYPE_CHECKING:
    from repro_audit.replicate.run import Run

# Functions that the processes of a pool run; the first argument is the queue of its tasks.
_WORKERS = {
    ("multiprocessing.pool", "worker"),
    ("torch.multiprocessing.pool", "clean_worker"),
    ("concurrent.futures.process", "_process_worker"),
}


class Pools:
    """Recognises the processes of `multiprocessing.Pool` and `ProcessPoolExecutor`.

    All processes of a pool share its name. A task is a thread of that process, named by the order
    in which tasks were handed to pools: 3.2 is the second part of the third call; in an executor
    simply 3.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        # By the identity of the queue of tasks: the pool's name, and how many processes it had.
        self._known: weakref.WeakKeyDictionary[Any, Member] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        """Observe tasks wherever this process, or a fork of it, works for a pool."""
        when_imported("multiprocessing.pool", self._pool, in_forks=True)
        when_imported("concurrent.futures.process", self._executor, in_forks=True)

    def member_of(self, process: Any, lineage: Lineage) -> Member:
        """What a process of `multiprocessing` that is about to start is to be."""
        target = process._target
        name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
        if name not in _WORKERS:
            return lineage.next()
        queue = process._args[0]
        known = self._known.get(queue) or lineage.next()
        self._known[queue] = known = replace(known, worker=known.worker + 1)
        return known

    def _pool(self, module: Any) -> None:
        work = module.worker
        failing = module._helper_reraises_exception

        def named(task: Any) -> Any:
            job, number, function, *rest = task
            # The worker looks whether it is this one.
            if function is not failing:
                function = self._run.task(function, f"{job + 1}.{number + 1}")
            return (job, number, function, *rest)

        @functools.wraps(work)
        def observed_work(tasks: Any, *args: Any, **kwargs: Any) -> None:
            # In other threads it works for a pool of threads, which capture sees to.
            if threading.current_thread() is threading.main_thread():
                tasks = _Tasks(tasks, named, self._run.between_tasks)
            work(tasks, *args, **kwargs)

        module.worker = observed_work

    def _executor(self, module: Any) -> None:
        work = module._process_worker

        def named(item: Any) -> Any:
            item.fn = self._run.task(item.fn, str(item.work_id + 1))
            return item

        @functools.wraps(work)
        def observed_work(tasks: Any, *args: Any, **kwargs: Any) -> None:
            work(_Tasks(tasks, named, self._run.between_tasks), *args, **kwargs)

        module._process_worker = observed_work


class _Tasks:
    """A queue of tasks that come out of it observed."""

    def __init__(
        self, queue: Any, named: Callable[[Any], Any], between: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._named = named
        self._between = between

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self._between()
        task = self._queue.get(*args, **kwargs)
        return None if task is None else self._named(task)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)
