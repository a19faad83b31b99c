"""An experiment's control: every generator gets a fixed seed, whatever the program gives it."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import random
from collections.abc import Callable
from typing import Any

from repro_audit.control.imports import when_imported
from repro_audit.model.codes import SEEDINGS

_SEED = 0


def install() -> None:
    """Replace the seeds of Python's, NumPy's and torch's generators, and the system's randomness.

    The n-th generator of a kind has the n-th seed of a fixed row. Lasts for the process.
    """
    seeds = itertools.count(_SEED)
    original = random.Random.seed

    def seed(self: random.Random, *args: Any, **kwargs: Any) -> None:
        original(self, next(seeds))

    random.Random.seed = seed  # type: ignore[method-assign]
    random.seed = random._inst.seed
    # The global generators have drawn their seeds by now.
    random.seed()
    urandom = _stream()
    os.urandom = urandom
    vars(random)["_urandom"] = urandom
    when_imported("numpy.random", _numpy, in_forks=True)
    when_imported("torch", _torch, in_forks=True)


def _stream() -> Callable[[int], bytes]:
    """Bytes that look random and are the same in every run."""
    calls = itertools.count()

    def urandom(size: int, /) -> bytes:
        return hashlib.shake_128(b"%d" % next(calls)).digest(size)

    return urandom


def _numpy(numpy_random: Any) -> None:
    seeds = itertools.count(_SEED)
    # Where a generator is made without a seed, these bits are what it gets.
    bits = importlib.import_module("numpy.random.bit_generator")
    vars(bits)["randbits"] = lambda width: next(seeds)
    seed, default_rng = numpy_random.seed, numpy_random.default_rng
    numpy_random.seed = lambda *args, **kwargs: seed(next(seeds))
    numpy_random.seed()

    def fixed_rng(seed: Any = None) -> Any:
        # A generator handed in is handed back, as it is plainly.
        given = hasattr(seed, "bit_generator") or hasattr(seed, "spawn_key")
        return default_rng(seed if given else next(seeds))

    numpy_random.default_rng = fixed_rng


def _torch(torch: Any) -> None:
    from repro_audit.engine import accelerators

    seeds = itertools.count(_SEED)
    manual_seed = torch.manual_seed

    def seeded(seed: Any = None) -> Any:
        return manual_seed(next(seeds))

    def drawn() -> int:
        number = next(seeds)
        manual_seed(number)
        return number

    def of_devices(seeding: Any) -> Any:
        return lambda seed=None: seeding(next(seeds))

    for owner in (torch, torch.random):
        owner.manual_seed = seeded
        owner.seed = drawn
    fixed = set()

    def fix_devices() -> None:
        for kind in accelerators.accelerator_kinds():
            if kind in fixed:
                continue
            fixed.add(kind)
            module = getattr(torch, kind)
            manual = {call: accelerators.function(module, call) for call in SEEDINGS}
            for call in SEEDINGS:
                seeding = manual[f"manual_{call.removeprefix('manual_')}"]
                for owner in accelerators.homes(module):
                    if seeding is not None and hasattr(owner, call):
                        setattr(owner, call, of_devices(seeding))

    register = torch._register_device_module

    def registered(*args: Any, **kwargs: Any) -> None:
        # Another maker's devices are there from when the program imports its package.
        register(*args, **kwargs)
        fix_devices()

    torch._register_device_module = registered
    fix_devices()
    drawn()
