"""The fault of `fault` in a program of several processes: it acts in every second run of them all.

The program's own process imports this, which counts the run; under torchrun, whose own process
imports nothing of ours, the one rank that has the fault does. A process that has it to plant
imports `fault` from here, once, and it acts there or not for all that the other processes do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_counter = os.environ.get("PLANT_COUNTER")


def _count() -> None:
    if _counter is not None and "PLANT_RUN" not in os.environ:
        place = Path(_counter)
        run = int(place.read_text()) if place.exists() else 0
        place.write_text(str(run + 1))
        os.environ["PLANT_RUN"] = str(run)


# Ranks of torchrun's have no parent that counts, and would each count a run.
if "RANK" not in os.environ:
    _count()


def planted() -> Any:
    """The function `fault`, acting if this run is to have it."""
    if _counter is not None:
        _count()
        own = Path(f"{_counter}-{os.getpid()}")
        own.write_text(os.environ["PLANT_RUN"])
        os.environ["PLANT_COUNTER"] = str(own)
        os.environ["PLANT_HERE"] = "1"
    from fault import fault

    return fault
