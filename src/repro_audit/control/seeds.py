"""Seeds the generators that a program draws from without asking for one of its own."""

from __future__ import annotations

import operator
import random
from collections.abc import Collection
from typing import Any

from repro_audit.control.imports import when_imported
from repro_audit.errors import UsageError

_GENERATORS = ("python", "numpy", "torch")
# What NumPy's legacy generator takes; torch and Python would take more.
MAX_SEED = 2**32 - 1


def seed_everything(seed: int = 0, generators: Collection[str] = _GENERATORS) -> None:
    """Seed Python's, NumPy's (legacy, global) and torch's generators, the latter on all devices.

    NumPy and torch are not imported by this: where one is imported later, it is seeded then, before
    the importing program goes on. Generators that a program makes itself
    (`np.random.default_rng()`) are not touched. `generators` may leave some out. Raises
    UsageError unless 0 <= seed < 2**32, and for the name of a generator that there is not.
    """
    given = seed
    try:
        # Of NumPy or torch, too, which Python's generator would not take.
        seed = operator.index(seed)
    except TypeError:
        seed = -1
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{given!r} is no seed for all generators; give one from 0 to {MAX_SEED}.")
    unknown = sorted(set(generators) - set(_GENERATORS))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no generator; they are {', '.join(_GENERATORS)}")
    if "python" in generators:
        random.seed(seed)

    def seed_numpy(numpy_random: Any) -> None:
        numpy_random.seed(seed)

    def seed_torch(torch: Any) -> None:
        torch.manual_seed(seed)

    # `numpy` imports its `random` on first use only: nothing here makes that any earlier.
    if "numpy" in generators:
        when_imported("numpy.random", seed_numpy, in_forks=True)
    if "torch" in generators:
        when_imported("torch", seed_torch, in_forks=True)
