"""How the benchmarks take the time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """Seconds of one call, from `times` in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
