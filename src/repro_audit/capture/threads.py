"""Python threads the program starts: a dispatch mode is a thread's own, so each gets one."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

# Their threads take work in the order of its arrival, which differs from run to run.
_POOLS = (
    "concurrent.futures.thread",
    "multiprocessing.pool",
    "torch.utils.data._utils.pin_memory",
)
# An executor's tasks are observed one by one; this pool's are not.
_UNOBSERVED_POOL = "multiprocessing.pool"


class Threads:
    """Numbers threads in the order in which they are started, and records inside them.

    Which thread of an executor does what is left to chance, so each of its tasks counts as a thread
    of its own, numbered when it is submitted.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._numbers = itertools.count(1)
        self._start = threading.Thread.start
        self._submit: Any = ThreadPoolExecutor.submit

    def install(self) -> None:
        """Wrap `Thread.start` and `ThreadPoolExecutor.submit`."""
        start, submit, recorder = self._start, self._submit, self._recorder

        @functools.wraps(start)
        def observed_start(thread: threading.Thread, *args: Any, **kwargs: Any) -> None:
            target = getattr(thread, "_target", None)
            if recorder.active and getattr(target, "__module__", None) == _UNOBSERVED_POOL:
                recorder.unobserved["a thread of multiprocessing.pool"] += 1
            if recorder.active and getattr(target, "__module__", None) not in _POOLS:
                run = self._observed(thread.run)

                def observed_run() -> None:
                    # The instance attribute would keep the thread in a reference cycle.
                    thread.__dict__.pop("run", None)
                    run()

                # `run` may be overridden, so it is wrapped on the instance.
                thread.run = observed_run  # type: ignore[method-assign]
            start(thread, *args, **kwargs)

        @functools.wraps(submit)
        def observed_submit(pool: Any, task: Any, /, *args: Any, **kwargs: Any) -> Any:
            return submit(pool, self._observed(task) if recorder.active else task, *args, **kwargs)

        threading.Thread.start = observed_start  # type: ignore[method-assign,assignment]
        ThreadPoolExecutor.submit = observed_submit  # type: ignore[method-assign]

    def uninstall(self) -> None:
        """Give the methods back."""
        threading.Thread.start = self._start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign]

    def _observed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, recorded as a thread with the next number, from the step it is asked for in."""
        recorder = self._recorder
        number = next(self._numbers)
        asking = recorder.mode()
        step = asking.step if asking is not None else recorder.step

        def observed(*args: Any, **kwargs: Any) -> Any:
            if not recorder.active:
                return run(*args, **kwargs)
            recorder.enter_thread(number, step)
            try:
                return run(*args, **kwargs)
            finally:
                recorder.leave_thread()

        return observed
