"""How fast events are written, how large a trace gets, whether long programs need more memory.

    python benchmarks/trace.py [--events N] [--steps N] [--json FILE]

Writing is that of the trace alone: events with one output each, gathered as capture does, in
transactions of 4,096. The size is that of training the 4-layer GPT of gpt_step.py for some steps.
Memory is what this process has resident after a tenth of the steps of a small network, and at the
end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpt_step import GPT
from provenance import provenance
from repro_audit.capture import Recorder
from repro_audit.trace import Writer

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def writing(folder: Path, count: int) -> dict[str, float]:
    """Seconds spent in writing, and what the file takes."""
    path = folder / "written.sqlite"
    writer = Writer(path, run="benchmark", plan={})
    spec = writer.spec("float32", (64, 64), "cpu")
    sites = [writer.site(f"blocks.{i}.linear", "aten.addmm.default") for i in range(300)]
    code = writer.code("train.py:10")
    digests = [os.urandom(16) for _ in range(1000)]
    seconds = 0.0
    for i in range(count):
        cause = i - 500 if i % 2 and i > 500 else None
        writer.events.append((i, 0, i // 3000, 3, 0, sites[i % 300], i % 3, code, cause, 0))
        writer.outputs.append((i, 0, spec, digests[i % 1000], None))
        if i % 4096 == 4095:
            start = time.perf_counter()
            writer.flush()
            seconds += time.perf_counter() - start
    start = time.perf_counter()
    writer.close(manifest={}, closing={"events": count})
    seconds += time.perf_counter() - start
    return {"events/s": count / seconds, "bytes/event": path.stat().st_size / count}


def observed(folder: Path, name: str, step: Any, steps: int) -> dict[str, float]:
    """Bytes of trace an event of `steps` steps, and memory after a tenth of them and at the end."""
    path = folder / f"{name}.sqlite"
    writer = Writer(path, run="benchmark", plan={})
    recorder = Recorder(writer, bases=(str(folder),))
    recorder.start()
    early = 0
    for number in range(steps):
        step()
        if number == steps // 10:
            early = resident()
    late = resident()
    recorder.stop()
    writer.close(manifest={}, closing={"events": recorder.events})
    return {
        "steps": steps,
        "events": recorder.events,
        "bytes/event": path.stat().st_size / recorder.events,
        "resident after a tenth": early,
        "resident at the end": late,
    }


def training(model: nn.Module, batch: torch.Tensor) -> Any:
    """One step of a model that returns logits, as a function."""
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(batch).float().square().mean().backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
        report = {
            "writing": writing(folder, given.events),
            "GPT": observed(
                folder, "gpt", training(GPT(1000), torch.randint(0, 1000, (4, 64))), given.steps
            ),
            "small network": observed(
                folder, "small", training(small, torch.randn(8, 16)), 200 * given.steps
            ),
        }
    for name, figures in report.items():
        shown = (f"{key} {value:,.4g}" for key, value in figures.items())
        print(f"{name}: {', '.join(shown)}")
    if given.json:
        given.json.write_text(json.dumps(provenance() | report, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
