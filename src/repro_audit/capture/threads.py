"""Python threads the program starts: a dispatch mode is a thread's own, so each gets one."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder


class Threads:
    """Numbers threads in the order in which they are started, and records inside them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._started = 0
        self._start = threading.Thread.start

    def install(self) -> None:
        """Wrap `Thread.start`; `run` may be overridden, so it is wrapped on the instance."""
        start, recorder = self._start, self._recorder

        @functools.wraps(start)
        def observed_start(thread: threading.Thread, *args: Any, **kwargs: Any) -> None:
            if recorder.active:
                self._started += 1
                number = self._started
                run = thread.run

                def observed_run() -> None:
                    # The instance attribute would keep the thread in a reference cycle.
                    del thread.run
                    if not recorder.active:
                        run()
                        return
                    recorder.enter_thread(number)
                    try:
                        run()
                    finally:
                        recorder.leave_thread()

                thread.run = observed_run  # type: ignore[method-assign]
            start(thread, *args, **kwargs)

        threading.Thread.start = observed_start  # type: ignore[method-assign,assignment]

    def uninstall(self) -> None:
        """Give `Thread.start` back."""
        threading.Thread.start = self._start  # type: ignore[method-assign]
