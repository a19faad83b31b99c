"""Capture: runs inside the audited process and turns what it does into events.

Importing this package imports torch: it is loaded once the program itself has done so.
"""

from repro_audit.capture.lockstep import Lockstep
from repro_audit.capture.recorder import Recorder
from repro_audit.capture.steps import StepLimitExit

__all__ = ["Lockstep", "Recorder", "StepLimitExit"]
