"""Traces: one SQLite file a process, written by `Writer`, read by `Trace`."""

from repro_audit.trace.reader import Trace
from repro_audit.trace.writer import Writer

__all__ = ["Trace", "Writer"]
