"""Graphs under capture: what may not be asked of CUDA meanwhile, and how the rest is asked.

A capture belongs to the program. A kernel or a copy of ours on its stream would become part of the
graph, and many a question (is an event there?), asked by any thread, makes CUDA give up the
capture.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.engine import accelerators, kernels
from repro_audit.errors import UnsupportedTensorError

# CU_STREAM_CAPTURE_MODE_RELAXED.
_RELAXED = 2

_local = threading.local()


def captive() -> bool:
    """Whether what the calling thread allocates on a device is a graph's, no place for ours.

    So it is in a capture, and in the run before one that `torch.compile` makes for its graphs: that
    ends with an error where anything but the program's own is left in their memory.
    """
    return getattr(_local, "routed", 0) > 0 or accelerators.capturing()


def routed(change: int) -> None:
    """What the calling thread allocates goes to a graph's memory (1), or does no longer (-1)."""
    _local.routed = max(0, getattr(_local, "routed", 0) + change)


def refuse() -> None:
    """Raise UnsupportedTensorError where devices' tensors have nothing to read, or are out of
    reach.
    """
    if accelerators.forked():
        raise UnsupportedTensorError(
            "A device's tensor in a fork of the process that made it is out of reach. Start "
            "processes that use an accelerator by spawn."
        )
    if accelerators.capturing():
        raise UnsupportedTensorError(
            "A tensor in a graph's capture has no values yet. Fingerprint it after a replay."
        )


def failed() -> bool:
    """Whether CUDA answers all with an error by now, as it does after an assertion on a device."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        with aside():
            torch.cuda.current_stream().query()
    except RuntimeError:
        return True
    return False


@contextmanager
def aside() -> Iterator[None]:
    """What is asked of CUDA within costs no thread its capture, and is none of the program's
    synchronisations, which it may have forbidden (`torch.cuda.set_sync_debug_mode`).
    """
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield
        return
    driver = kernels.driver()
    mode = ctypes.c_int(_RELAXED)
    exchanged = driver is not None and not driver.cuThreadExchangeStreamCaptureMode(
        ctypes.byref(mode)
    )
    forbidden = torch.cuda.get_sync_debug_mode()
    if forbidden:
        torch.cuda.set_sync_debug_mode(0)
    try:
        yield
    finally:
        if forbidden:
            torch.cuda.set_sync_debug_mode(forbidden)
        if driver is not None and exchanged:
            driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
