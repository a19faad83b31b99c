"""The audit: the loop over running and diagnosing that ends in a verdict."""

from repro_audit.audit.checkpoints import compare_checkpoints
from repro_audit.audit.comparing import compare_traces
from repro_audit.audit.loop import run_audit
from repro_audit.audit.matrix import MatrixRequest, run_matrix
from repro_audit.audit.recording import given_from, kept_of, record_run
from repro_audit.audit.request import AuditRequest, InterruptedAuditError, Progress
from repro_audit.audit.resuming import ResumeRequest, run_resume
from repro_audit.audit.screening import ScreenRequest, run_screen, screen_recordings
from repro_audit.audit.verifying import VerifyRequest, verify

__all__ = [
    "AuditRequest",
    "InterruptedAuditError",
    "MatrixRequest",
    "Progress",
    "ResumeRequest",
    "ScreenRequest",
    "VerifyRequest",
    "compare_checkpoints",
    "compare_traces",
    "given_from",
    "kept_of",
    "record_run",
    "run_audit",
    "run_matrix",
    "run_resume",
    "run_screen",
    "screen_recordings",
    "verify",
]
