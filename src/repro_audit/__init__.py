"""Audits the reproducibility of PyTorch programs: the public API, loaded on first use.

Importing this package imports neither torch nor numpy; the first use of a name does where it must.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro_audit.audit.recording import record
    from repro_audit.control.seeds import seed_everything
    from repro_audit.engine import compare, fingerprint
    from repro_audit.errors import (
        NotReproducibleError,
        ReplicaDriftError,
        SuspectedHardwareError,
    )
    from repro_audit.integrations.guard import Guard
    from repro_audit.integrations.repeated import check_reproducible, record_baseline
    from repro_audit.integrations.replicas import check_replicas
    from repro_audit.model import Fingerprint, Tolerance, UlpDivergence
    from repro_audit.report.notebook import load_report

__version__ = "0.1.0"

__all__ = [
    "Fingerprint",
    "Guard",
    "NotReproducibleError",
    "ReplicaDriftError",
    "SuspectedHardwareError",
    "Tolerance",
    "UlpDivergence",
    "__version__",
    "check_replicas",
    "check_reproducible",
    "compare",
    "fingerprint",
    "load_report",
    "record",
    "record_baseline",
    "seed_everything",
]

_HOMES = {
    "Fingerprint": "repro_audit.model",
    "Guard": "repro_audit.integrations.guard",
    "NotReproducibleError": "repro_audit.errors",
    "ReplicaDriftError": "repro_audit.errors",
    "SuspectedHardwareError": "repro_audit.errors",
    "Tolerance": "repro_audit.model",
    "UlpDivergence": "repro_audit.model",
    "check_replicas": "repro_audit.integrations.replicas",
    "check_reproducible": "repro_audit.integrations.repeated",
    "compare": "repro_audit.engine",
    "fingerprint": "repro_audit.engine",
    "load_report": "repro_audit.report.notebook",
    "record": "repro_audit.audit.recording",
    "record_baseline": "repro_audit.integrations.repeated",
    "seed_everything": "repro_audit.control.seeds",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
