"""The states of the process's global generators, kept for a while."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any


def remembered() -> Callable[[], None]:
    """Note the states of Python's, NumPy's (legacy, global) and torch's generators, the latter on
    all devices that are in use; what is returned puts them back.
    """
    import torch

    from repro_audit import engine

    numpy: Any = sys.modules.get("numpy.random")
    python = random.getstate()
    legacy = numpy.get_state() if numpy is not None else None
    host = torch.get_rng_state()
    devices = [(given, given.get_state()) for _, given in engine.device_generators()]

    def put_back() -> None:
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(legacy)
        torch.set_rng_state(host)
        for generator, state in devices:
            generator.set_state(state)

    return put_back


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """After the block the generators are as they were before it."""
    put_back = remembered()
    try:
        yield
    finally:
        put_back()
