"""Traces: one SQLite file a process, written by `Writer`, read by `Trace`."""

from repro_audit.trace.file import TraceFile
from repro_audit.trace.reader import Trace, folder_of, processes_of
from repro_audit.trace.writer import Writer

__all__ = ["Trace", "TraceFile", "Writer", "folder_of", "processes_of"]
