"""Tests that need a CUDA device. Without one they are skipped, with the reason; where
`REPRO_AUDIT_REQUIRE=cuda` is set they fail instead.
"""

from __future__ import annotations

import os

import pytest
import torch

from repro_audit.engine import kernels


@pytest.fixture(autouse=True)
def needs_cuda() -> None:
    problem = kernels.problem("cuda")
    if not problem and not torch.cuda.is_available():
        problem = "torch sees no CUDA device"
    if problem and os.environ.get("REPRO_AUDIT_REQUIRE") == "cuda":
        pytest.fail(f"a CUDA device is required: {problem}")
    if problem:
        pytest.skip(problem)
