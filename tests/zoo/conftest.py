"""Audits of the zoo: programs of every kind that people run, clean and with a planted fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repro_audit.model import Event
from repro_audit.trace import Trace

PROGRAMS = Path(__file__).resolve().parent / "programs"


@dataclass(frozen=True)
class Result:
    """What `repro-audit run --format json` said, and its exit code."""

    code: int
    report: dict[str, Any]
    stderr: str
    traces: tuple[Path, ...]

    def named(self) -> tuple[str, str, str]:
        """Phase, module and op of the first divergence; there must be one."""
        found = self.report["first_divergence"]
        assert found is not None, self.report["verdict"]
        return found["phase"], found["module"], found["op"]

    def warned(self) -> list[str]:
        """The codes of the warnings."""
        return [warning["code"] for warning in self.report["warnings"]]

    def events(self) -> list[Event]:
        """The events of the first run."""
        with closing(Trace.open(self.traces[0])) as trace:
            return [trace.event(i) for i in range(len(trace))]

    def unbound(self) -> list[str]:
        """Backward ops of the first run without a cause: that accumulate the gradient of a leaf
        that no module and no optimizer knows, if all is well.
        """
        return [
            event.key.op
            for event in self.events()
            if event.kind == "op" and event.key.phase == "backward" and event.cause is None
        ]

    def printed(self) -> str:
        """What the first run printed."""
        return self.traces[0].with_suffix(".out").read_text()


@pytest.fixture
def zoo(tmp_path: Path, command_line: Callable[..., Any]) -> Callable[..., Result]:
    """Audit a program of the zoo: `zoo("accumulation", "--self-check", PLANT_CALL="1")`, or a
    module, `zoo("-m torch.distributed.run")`.

    Its directory is the test's own. With `fault=True` the planted fault acts in every second
    process; `words` go to the program.
    """

    def run(
        program: str, *options: str, fault: bool = False, words: tuple[str, ...] = (), **env: str
    ) -> Result:
        if fault:
            env["PLANT_COUNTER"] = str(tmp_path / "count")
        option, _, module = program.partition(" ")
        target = [option, module] if module else [str(PROGRAMS / f"{program}.py")]
        words = ("--", *words) if words else ()
        done = command_line(
            ["run", *target, *options, "--format", "json", *words],
            cwd=tmp_path,
            env={**os.environ, **env},
            timeout=280,
        )
        report = json.loads(done.stdout) if done.returncode in {0, 1} else {}
        traces = sorted((tmp_path / ".repro-audit").glob("*/run-1.sqlite"))
        return Result(done.returncode, report, done.stderr, tuple(traces))

    return run
