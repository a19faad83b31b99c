"""The global random number generators of the accelerators that are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def device_generators() -> list[tuple[str, torch.Generator]]:
    """(name of the device, generator) of all devices of each kind of accelerator in use.

    Starts none: one that the program has not used has no state to tell. Their states are the
    host's, so that reading one waits for nothing.
    """
    import torch

    found = []
    for kind in ("cuda", "xpu"):
        module: Any = getattr(torch, kind)
        if module.is_initialized():
            found += [(f"{kind}:{n}", given) for n, given in enumerate(module.default_generators)]
    # Made when it is first asked for, by `torch.manual_seed` at the latest.
    mps = torch.mps._default_mps_generator
    return found if mps is None else [*found, ("mps", mps)]


def generator_of(device: torch.device) -> torch.Generator:
    """The global generator of a device, which is started where it is not in use yet."""
    import torch

    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    if device.type not in {"cuda", "xpu"}:
        return torch.default_generator
    module: Any = getattr(torch, device.type)
    module.init()
    generators: tuple[torch.Generator, ...] = module.default_generators
    return generators[module.current_device() if device.index is None else device.index]


def seed_devices(kind: str, seed: int) -> None:
    """Seed the generators of all devices of a kind; those of the host for any but accelerators."""
    import torch

    if kind in {"cuda", "xpu"}:
        getattr(torch, kind).manual_seed_all(seed)
    else:
        generator_of(torch.device(kind)).manual_seed(seed)
