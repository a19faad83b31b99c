"""Tests that need an accelerator of another kind than CUDA: Intel's, Apple's, or of a maker that
torch does not know. Without one they are skipped, with the reason; under
`REPRO_AUDIT_REQUIRE=accelerator` they fail instead.
"""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def kind() -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if found is None else found.type
    wanted = os.environ.get("STANDIN_KIND", kind)
    problem = f"torch finds {kind} here" if kind in {"cpu", "cuda"} or kind != wanted else ""
    if problem and "accelerator" in os.environ.get("REPRO_AUDIT_REQUIRE", "").split(","):
        pytest.fail(f"required, and not there: {problem}")
    if problem:
        pytest.skip(problem)
    return kind


@pytest.fixture
def device(kind: str) -> torch.device:
    torch.ones(1, device=kind)
    return torch.device(kind, 0)
