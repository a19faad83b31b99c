"""The audit: the loop over running and diagnosing that ends in a verdict."""

from repro_audit.audit.comparing import compare_traces
from repro_audit.audit.loop import run_audit
from repro_audit.audit.recording import record_run
from repro_audit.audit.request import AuditRequest, Progress

__all__ = ["AuditRequest", "Progress", "compare_traces", "record_run", "run_audit"]
