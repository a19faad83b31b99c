"""Traces: one SQLite file a process, written by `Writer`, read by `Trace`.

A run's own process writes: what reads is loaded when it is asked for, and NumPy with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from repro_audit.trace.folders import folder_of, processes_of
from repro_audit.trace.writer import Writer

if TYPE_CHECKING:
    from repro_audit.trace.file import TraceFile
    from repro_audit.trace.reader import Trace

__all__ = ["Trace", "TraceFile", "Writer", "folder_of", "processes_of"]

_READERS = {"Trace": "reader", "TraceFile": "file"}


def __getattr__(name: str) -> object:
    home = _READERS.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
