"""Daemon threads at the end of a process: none is to be inside an operator when Python goes.

Python ends a thread that asks for its lock then by unwinding its stack, and C++ that lets nothing
through, as operators have it, ends the process instead. That befalls a program by itself too; ours
spends longer in operators, by what is recorded of each.
"""

from __future__ import annotations

import sys
import threading
import time
from types import CodeType, FrameType

# What an operator under way gets to end, in seconds.
_PATIENCE = 1.0
_PAUSE = 0.002


class Stillness:
    """Where the threads wait that come to an operator, whose calls run `code`, too late."""

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._ending = threading.get_ident()
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait_here(self) -> None:
        """For ever, but for the thread that ends the process."""
        if threading.get_ident() != self._ending:
            self._gate.acquire()

    def come(self) -> None:
        """Return once no thread is in an operator, or none ever leaves it."""
        deadline = time.monotonic() + _PATIENCE
        quiet = 0
        # One that has not come to our part of an operator yet needs Python's lock to get there.
        while quiet < 2 and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            quiet = 0 if any(map(self._busy, self._others())) else quiet + 1

    def _others(self) -> list[FrameType]:
        return [frame for ident, frame in sys._current_frames().items() if ident != self._ending]

    def _busy(self, frame: FrameType | None) -> bool:
        if frame is not None and frame.f_code is Stillness.wait_here.__code__:
            return False
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        return frame is not None
