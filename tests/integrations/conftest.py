"""Processes of a test's own file, one a rank, and what they found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_audit.trace import Trace

_SECONDS = 250


@pytest.fixture(scope="session")
def started() -> Callable[..., list[dict[str, Any]]]:
    """Runs `FILE FOLDER WORD...`, alone or as ranks: what each left in `FOLDER/RANK.json`."""

    def run(file: str, folder: Path, ranks: int, *words: str) -> list[dict[str, Any]]:
        with socket.socket() as held:
            held.bind(("localhost", 0))
            port = held.getsockname()[1]
        group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        processes = [
            subprocess.Popen(
                [sys.executable, file, str(folder), *words],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    **({**group, "RANK": str(n), "LOCAL_RANK": str(n)} if ranks > 1 else {}),
                },
            )
            for n in range(ranks)
        ]
        assert [process.wait(_SECONDS) for process in processes] == [0] * ranks
        return [json.loads((folder / f"{n}.json").read_text()) for n in range(ranks)]

    return run


@pytest.fixture(scope="session")
def closing() -> Callable[[Path], dict[str, Any]]:
    """The closing record of a trace."""

    def read(path: Path) -> dict[str, Any]:
        trace = Trace.open(path)
        trace.close()
        return dict(trace.closing)

    return read
