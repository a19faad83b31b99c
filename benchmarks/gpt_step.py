"""What observing a training step costs: plain, audited, recorded, under DebugMode.

    python benchmarks/gpt_step.py [--vocabulary 1000] [--pairs 15] [--json FILE]

One process, one model (4 layers, width 384, batch 4 by 128, AdamW). Each round runs one plain step,
one audited step at each level (events written to a trace file), one that is recorded (with samples)
and one under torch's DebugMode with `hash_tensor` digests of every output. An audited step is the
third of its run and includes writing its events; what a run costs once, in its first step and at
its end, is given apart, and so is a step after which what the optimizer keeps is read as well: the
second, fourth, eighth ... Ratios are taken within a round, and the medians are given with a
bootstrap interval of 95%.
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
from torch import nn
from torch.nn import functional as F
from torch.utils._debug_mode import DebugMode

from provenance import provenance
from repro_audit.audit.recording import SAMPLES
from repro_audit.capture import Recorder
from repro_audit.trace import Writer

# What a recorder is asked for.
OBSERVED: dict[str, dict[str, Any]] = {
    "ops": {"level": "ops"},
    "modules": {"level": "modules"},
    "recording": {"level": "ops", "samples": SAMPLES},
}
WIDTH, HEADS, LAYERS, BATCH, LENGTH = 384, 6, 4, 4, 128


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.qkv(x).split(WIDTH, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, length, WIDTH))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def timed(work: Callable[[], None]) -> float:
    """Seconds one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median and a 95% bootstrap interval of it."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return statistics.median(values), medians[50], medians[1949]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = GPT(options.vocabulary)
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.randint(0, options.vocabulary, (BATCH, LENGTH))

    def step() -> None:
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    events: dict[str, int] = {}
    begins: dict[str, list[float]] = {name: [] for name in OBSERVED}
    kept: dict[str, list[float]] = {name: [] for name in OBSERVED}
    ends: list[float] = []

    def audited(folder: str, number: int, name: str) -> float:
        path = Path(folder) / f"{number}-{name}.sqlite"
        writer = Writer(path, run="benchmark", plan={})
        recorder = Recorder(writer, bases=(folder,), **OBSERVED[name])
        recorder.start()
        # Once a run: all parameters are read, modules named, operators' schemas looked at.
        begins[name].append(timed(step))
        recorder.flush()

        def written() -> None:
            step()
            recorder.flush()

        kept[name].append(timed(written))
        before = recorder.events
        seconds = timed(written)
        events[name] = recorder.events - before
        # Once a run, not once a step: a garbage collection and a last read of the models.
        ends.append(timed(recorder.stop))
        writer.close(manifest={}, closing={"events": recorder.events})
        return seconds

    def debug_mode() -> float:
        with DebugMode(record_nn_module=True) as mode, mode.log_tensor_hashes("hash_tensor"):
            return timed(step)

    for _ in range(2):
        step()
    plain: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in (*OBSERVED, "DebugMode")}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.pairs):
            plain.append(timed(step))
            for name in OBSERVED:
                ratios[name].append(audited(folder, number, name) / plain[-1])
            ratios["DebugMode"].append(debug_mode() / plain[-1])
    columns = {
        "plain, seconds": plain,
        **{f"{name} / plain": ratio for name, ratio in ratios.items()},
        **{f"first step, {name}": seconds for name, seconds in begins.items()},
        **{f"state read, {name}": seconds for name, seconds in kept.items()},
        "end of a run, seconds": ends,
    }
    results = {name: interval(values) for name, values in columns.items()}
    print(f"4-layer GPT step, vocabulary {options.vocabulary}, {options.pairs} rounds")
    for name, (median, low, high) in results.items():
        print(f"  {name:24} {median:8.3f}   [{low:.3f}, {high:.3f}]")
    print(f"  events a step: {events['ops']} ops, {events['modules']} modules")
    if options.json is not None:
        document = {
            **provenance(),
            "threads": torch.get_num_threads(),
            "vocabulary": options.vocabulary,
            "rounds": options.pairs,
            "median_low_high": results,
            "events": events,
        }
        options.json.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
