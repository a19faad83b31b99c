"""What a plan holds still in a process of the run: seeds, switches, pins, axes."""

from __future__ import annotations

import hashlib
from typing import Any

from repro_audit.model import Plan
from repro_audit.replicate.lineage import Member


def begin(plan: Plan, member: Member) -> None:
    """Set what can be set before torch is there."""
    if plan.mode != "as-is":
        from repro_audit.control import seeds

        seeds.seed_everything(seed_of(plan, member))
    elif seeded := [pin.removeprefix("seed-") for pin in plan.pins if pin.startswith("seed-")]:
        from repro_audit.control import seeds

        seeds.seed_everything(seed_of(plan, member), seeded)
    if "fixed-seeds" in plan.pins:
        from repro_audit.control import fixed_seeds

        fixed_seeds.install()
    if plan.reversed_listings:
        from repro_audit.control import perturb

        perturb.reverse_listings()


def of_torch(plan: Plan, torch: Any) -> bool:
    """Set the rest, where torch was just imported; True if fused attention is replaced."""
    if plan.mode == "deterministic":
        from repro_audit.control import switches

        switches.apply_deterministic(torch)
    # Fused attention draws inside its kernel, where nothing can be given to it. `is_available`
    # would start CUDA, which a fork of this process could not use any more.
    drawn = any(given.what in {"draws", "all"} for given in plan.given)
    math_attention = drawn and bool(torch.cuda.device_count())
    held = (*plan.pins, "math-attention") if math_attention else plan.pins
    if held:
        from repro_audit.control import pins

        pins.hold(held, torch)
    if plan.held:
        from repro_audit.control import axes

        axes.hold(plan.held, torch)
    return math_attention


def seed_of(plan: Plan, member: Member) -> int:
    """The seed of a process: of those that the program starts, each has another one."""
    if not member.name:
        return plan.seed
    word = f"{plan.seed}/{member.file}".encode()
    return int.from_bytes(hashlib.blake2b(word, digest_size=4).digest(), "little")
