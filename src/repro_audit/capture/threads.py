"""Python threads the program starts: a dispatch mode is a thread's own, so each gets one."""

from __future__ import annotations

import _thread
import multiprocessing.pool as pools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.capture.graphs import mark
from repro_audit.capture.replaced import Replaced

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

# Their threads take work in the order of its arrival, which differs from run to run.
_POOLS = (
    "concurrent.futures.thread",
    "multiprocessing.pool",
    "torch.utils.data._utils.pin_memory",
)
# What these are told of a finished task is for them, not for the program.
_INTERNAL = ("asyncio.futures", "concurrent.futures")


class Threads:
    """Names threads in the order in which each starts them, and records inside them.

    Which thread of a pool does what is left to chance, so each of its tasks counts as a thread of
    its own, named when it is submitted; a task of `map` by its place in it (2.1, 2.2), and what is
    called when a task is done as one more. Not seen: threads that native code starts.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        # The results that are waited for, by the number that their pool gave them.
        self._jobs: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._replaced = Replaced()

    def install(self) -> None:
        """Wrap what starts threads, and what hands tasks to pools of them."""
        self._replaced.wrap(threading.Thread, "start", self._starting)
        self._replaced.wrap(_thread, "start_new_thread", self._starting_bare)
        self._replaced.wrap(ThreadPoolExecutor, "submit", self._submitting)
        self._replaced.wrap(Future, "add_done_callback", self._awaiting)
        self._replaced.wrap(pools, "worker", self._working)
        self._replaced.wrap(pools.ApplyResult, "__init__", self._asking)
        self._replaced.wrap(pools.IMapIterator, "__init__", self._asking)

    def uninstall(self) -> None:
        """Give the functions back."""
        self._replaced.give_back()

    def _starting(self, start: Any) -> Any:
        def observed_start(thread: threading.Thread, *args: Any, **kwargs: Any) -> None:
            target = getattr(thread, "_target", None)
            if self._recorder.active and getattr(target, "__module__", None) not in _POOLS:
                run = self._observed(thread.run, self._recorder.next_thread())

                def observed_run() -> None:
                    # The instance attribute would keep the thread in a reference cycle.
                    thread.__dict__.pop("run", None)
                    run()

                # `run` may be overridden, so it is wrapped on the instance.
                thread.run = observed_run  # type: ignore[method-assign]
            start(thread, *args, **kwargs)

        return observed_start

    def _starting_bare(self, start: Any) -> Any:
        def observed_start(function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if self._recorder.active:
                function = self._observed(function, self._recorder.next_thread())
            return start(function, *args, **kwargs)

        return observed_start

    def _submitting(self, submit: Any) -> Any:
        def observed_submit(pool: Any, task: Any, /, *args: Any, **kwargs: Any) -> Any:
            if self._recorder.active:
                task = self._observed(task, self._recorder.next_thread())
            return submit(pool, task, *args, **kwargs)

        return observed_submit

    def _awaiting(self, add: Any) -> Any:
        def observed_add(future: Any, told: Any) -> None:
            # It is called in whichever thread finds the task done.
            if self._recorder.active and not str(told.__module__).startswith(_INTERNAL):
                told = self._observed(told, self._recorder.next_thread())
            add(future, told)

        return observed_add

    def _asking(self, init: Any) -> Any:
        def observed_init(result: Any, pool: Any, *args: Any, **kwargs: Any) -> None:
            init(result, pool, *args, **kwargs)
            if not self._recorder.active:
                return
            name, step = result._repro_audit = self._recorder.next_thread()
            if isinstance(pool, pools.ThreadPool):
                self._jobs[result._job] = result
            for told in ("_callback", "_error_callback"):
                if getattr(result, told, None) is not None:
                    whose = f"{name}.done", step
                    setattr(result, told, self._observed(getattr(result, told), whose))

        return observed_init

    def _working(self, work: Any) -> Any:
        def observed_worker(tasks: Any, *args: Any, **kwargs: Any) -> None:
            # In a process of a process pool it is the main thread that works.
            if threading.current_thread() is not threading.main_thread():
                tasks = _Tasks(tasks, self._task)
            work(tasks, *args, **kwargs)

        return observed_worker

    def _task(self, job: int, number: int, function: Any) -> Any:
        result = self._jobs.get(job)
        if result is None:
            return function
        name, step = result._repro_audit
        whole = type(result) is pools.ApplyResult
        return self._observed(function, (name if whole else f"{name}.{number + 1}", step))

    def _observed(self, run: Callable[..., Any], thread: tuple[str, int]) -> Callable[..., Any]:
        """`run`, recorded as the thread of that name, from the step it was asked for in."""
        recorder = self._recorder

        def observed(*args: Any, **kwargs: Any) -> Any:
            if not recorder.active:
                return run(*args, **kwargs)
            mode = recorder.enter_thread(*thread)
            try:
                result = run(*args, **kwargs)
                if isinstance(result, torch.Tensor) and not result._is_view():
                    mark(result, mode)
                return result
            finally:
                recorder.leave_thread()

        return observed


class _Tasks:
    """A pool's queue of tasks, whose functions are observed."""

    def __init__(self, queue: Any, observed: Callable[[int, int, Any], Any]) -> None:
        self._queue = queue
        self._observed = observed

    def get(self) -> Any:
        task = self._queue.get()
        if task is None:
            return None
        job, number, function, *rest = task
        return (job, number, self._observed(job, number, function), *rest)
