"""What a guarded training step costs: a plain one, and one that is checked.

    python benchmarks/guard_step.py [--vocabulary 1000] [--pairs 25]

One process, the model of `gpt_step.py`, forward and backward. Each round makes one plain step and
one that is checked; the ratio is taken within it, and its median given with a bootstrap interval of
95%.
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

import repro_audit as ra
from gpt_step import BATCH, GPT, LENGTH, interval, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=25)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = GPT(options.vocabulary)
    ids = torch.randint(0, options.vocabulary, (BATCH, LENGTH))
    guard = ra.Guard(model, every=1)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()

    for _ in range(2):
        guard(step)
    plain: list[float] = []
    ratios: list[float] = []
    for _ in range(options.pairs):
        plain.append(timed(step))
        ratios.append(timed(lambda: guard(step)) / plain[-1])
    print(f"4-layer GPT, forward and backward, vocabulary {options.vocabulary}")
    for name, values in (("plain, seconds", plain), ("checked / plain", ratios)):
        median, low, high = interval(values)
        print(f"  {name:24} {median:8.3f}   [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
