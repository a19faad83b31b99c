"""Tests that need a CUDA device. Without one they are skipped, with the reason; what
`REPRO_AUDIT_REQUIRE` names (`cuda`, or `cuda,cupy`) fails instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import kernels


@pytest.fixture
def need() -> Callable[[str], None]:
    """Skips, or fails, where these kernels do not run."""

    def needed(name: str) -> None:
        problem = kernels.problem(name)
        if not problem and not torch.cuda.is_available():
            problem = "torch sees no CUDA device"
        if problem and name in os.environ.get("REPRO_AUDIT_REQUIRE", "").split(","):
            pytest.fail(f"required, and not there: {problem}")
        if problem:
            pytest.skip(problem)

    return needed


@pytest.fixture(autouse=True)
def needs_cuda(need: Callable[[str], None]) -> None:
    need("cuda")


@pytest.fixture(params=[*kernels.NAMES, "torch"])
def way(request: pytest.FixtureRequest, need: Callable[[str], None]) -> Iterator[str]:
    """Each way to a digest on the device, forced."""
    name: str = request.param
    if name in kernels.NAMES:
        need(name)
    engine.select(name)
    yield name
    engine.select(None)
