from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repro_audit.trace import Writer

EVENTS = 30


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small closed trace; `odd` is an event whose digest is another one."""

    def write(name: str = "a.audit", odd: int | None = None, close: bool = True) -> Path:
        path = tmp_path / name
        writer = Writer(path, run=Path(name).stem, plan={"mode": "controlled", "seed": 0})
        sites = [writer.site(f"h.{k}", f"aten.op{k}.default") for k in range(5)]
        spec, code = writer.spec("float32", (4, 4), "cpu"), writer.code("train.py:3")
        for i in range(EVENTS):
            writer.events.append((i, 0, i // 10, 3, 0, sites[i % 5], i % 10 // 5, code, None, 0))
            writer.outputs.append((i, 0, spec, bytes([i + (i == odd)]) * 16, None))
        writer.payload(EVENTS - 1, 1, 0, memoryview(b"abcd" * 16))
        if close:
            writer.close(
                manifest={"versions": {"torch": "2.13.0"}},
                closing={"events": EVENTS, "steps": 3, "outcome": "finished"},
            )
        else:
            writer.flush()
            writer.discard_connection()
        return path

    return write
