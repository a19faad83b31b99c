"""What observing a training step of GPT-2 small costs on a CUDA device.

    python -m benchmarks.gpu.training [--pairs N] [--batch N] [--length N] [--json FILE]

Random weights from a config, batches of 8 by 1024, bfloat16 autocast, AdamW (fused). Each round
runs one plain step and one audited step at each level (the events written to a trace file), each
until the device has done it. Ratios are taken within a round; medians, with a bootstrap interval of
95%. Synchronisations are those that torch's profiler counts in one step of each.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.provenance import provenance
from transformers import GPT2Config, GPT2LMHeadModel

from repro_audit.capture import Recorder
from repro_audit.model import Level
from repro_audit.trace import Writer

_SYNCHRONISATIONS = (
    "cudaDeviceSynchronize",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cuStreamSynchronize",
    "cuCtxSynchronize",
)


def seconds(work: Callable[[], None]) -> float:
    """Seconds until the device has done the work."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median and a 95% bootstrap interval of it."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return statistics.median(values), medians[50], medians[1949]


class Training:
    """A model, its optimizer and one batch."""

    def __init__(self, batch: int, length: int) -> None:
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(GPT2Config()).cuda()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.ids = torch.randint(0, 50257, (batch, length), device="cuda")

    def step(self) -> None:
        """Forward, backward, update."""
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.model(self.ids, labels=self.ids).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def audited(folder: str, number: int, level: Level, step: Callable[[], None]) -> tuple[float, int]:
    """Seconds of an audited step, without what a run costs once; how many events it made."""
    writer = Writer(Path(folder) / f"{number}-{level}.sqlite", run="benchmark", plan={})
    recorder = Recorder(writer, bases=(folder,), level=level)
    recorder.start()
    step()  # makes the ring, and has every operator's schema read

    def work() -> None:
        step()
        recorder.flush()

    before = recorder.events
    taken = seconds(work)
    events = recorder.events - before
    recorder.stop()
    writer.close(manifest={}, closing={"events": recorder.events})
    return taken, events


def synchronisations(step: Callable[[], None], level: Level | None) -> dict[str, int]:
    """How often a step waits for the device, by name of CUDA's function; observed at a level."""
    with tempfile.TemporaryDirectory() as folder:
        recorder: Any = None
        if level is not None:
            writer = Writer(Path(folder) / "trace.sqlite", run="benchmark", plan={})
            recorder = Recorder(writer, bases=(folder,), level=level)
            recorder.start()
        step()
        with torch.profiler.profile(activities=torch.profiler.supported_activities()) as profile:
            step()
            if recorder is not None:
                recorder.flush()
        if recorder is not None:
            recorder.stop()
            writer.close(manifest={}, closing={"events": recorder.events})
        # The profiler itself waits once, at its end.
        counts = {event.key: event.count for event in profile.key_averages()}
    return {name: counts.get(name, 0) for name in _SYNCHRONISATIONS}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    training = Training(given.batch, given.length)
    for _ in range(3):
        training.step()
    plain: list[float] = []
    ratios: dict[Level, list[float]] = {"ops": [], "modules": []}
    events = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.pairs):
            plain.append(seconds(training.step))
            for level, found in ratios.items():
                taken, events[level] = audited(folder, number, level, training.step)
                found.append(taken / plain[-1])
    result: dict[str, Any] = {
        "provenance": provenance() | {"device": torch.cuda.get_device_name()},
        "plain, seconds": interval(plain),
        **{f"audited {level} / plain": interval(found) for level, found in ratios.items()},
        "events": events,
        "synchronisations": {
            "plain": synchronisations(training.step, None),
            "audited ops": synchronisations(training.step, "ops"),
            "audited modules": synchronisations(training.step, "modules"),
        },
    }
    for name in ("plain, seconds", "audited ops / plain", "audited modules / plain"):
        median, low, high = result[name]
        print(f"{name:24} {median:8.3f}   [{low:.3f}, {high:.3f}]")
    print(f"events a step            {events}")
    for name, counts in result["synchronisations"].items():
        print(f"synchronisations, {name}: {sum(counts.values())}  {counts}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
