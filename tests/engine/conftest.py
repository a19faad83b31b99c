from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repro_audit import engine

VECTORS = Path(__file__).parents[1] / "vectors" / "digest_vectors.json"


@pytest.fixture(params=engine.available())
def each_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every engine that this machine has, in use for one test."""
    engine.select(request.param)
    yield request.param
    engine.select(None)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    return json.loads(VECTORS.read_text())
