"""The fault of `fault` in a program of several processes: it acts in every second run of them all.

The program's own process imports this, which counts the run; a process that has the fault to plant
imports `fault` from here, once, and it acts there or not for all that the other processes do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_counter = os.environ.get("PLANT_COUNTER")
if _counter is not None and "PLANT_RUN" not in os.environ:
    _place = Path(_counter)
    _run = int(_place.read_text()) if _place.exists() else 0
    _place.write_text(str(_run + 1))
    os.environ["PLANT_RUN"] = str(_run)


def planted() -> Any:
    """The function `fault`, acting if this run is to have it."""
    if _counter is not None:
        own = Path(f"{_counter}-{os.getpid()}")
        own.write_text(os.environ["PLANT_RUN"])
        os.environ["PLANT_COUNTER"] = str(own)
        os.environ["PLANT_HERE"] = "1"
    from fault import fault

    return fault
