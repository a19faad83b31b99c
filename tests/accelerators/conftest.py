"""Tests that need an accelerator of another kind than CUDA: Intel's, or of a maker that torch does
not know. Without one they are skipped, with the reason; where `REPRO_AUDIT_REQUIRE` names its kind
they fail instead.
"""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def kind() -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if found is None else found.type
    wanted = os.environ.get("REPRO_AUDIT_REQUIRE", "")
    if wanted and wanted != kind:
        pytest.fail(f"{wanted} is required, and torch finds {kind}")
    if kind in {"cpu", "cuda"}:
        pytest.skip(f"no accelerator but {kind} is here")
    return kind


@pytest.fixture
def device(kind: str) -> torch.device:
    getattr(torch, kind).init()
    return torch.device(kind, 0)
