"""The accelerators that torch knows or was taught by another maker, and their global generators."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

_FORKED = "_is_in_bad_fork"
_KNOWN = ("cuda", "xpu", "mps", "mtia")
# Of the modules that were known when they were last looked for.
_with_graphs: list[Any] = []


class DeviceGenerator(Protocol):
    """What is asked of a device's global generator; a `torch.Generator` where there is one."""

    @property
    def device(self) -> torch.device:
        """The device that it draws on."""

    def get_state(self) -> torch.Tensor:
        """Its state, on the host."""

    def set_state(self, new_state: torch.Tensor) -> Any:
        """Put a state back."""


@dataclass(frozen=True)
class _ByFunctions:
    """The generator of a device whose module tells its state but not the generator itself."""

    device: torch.device

    def get_state(self) -> torch.Tensor:
        state: torch.Tensor = _module(self.device.type).get_rng_state(self.device)
        return state

    def set_state(self, new_state: torch.Tensor) -> None:
        _module(self.device.type).set_rng_state(new_state, self.device)


def accelerator_kinds() -> tuple[str, ...]:
    """Names of all kinds of accelerator that torch has a module for, whether any is here or not:
    its own, and that of a maker whose package is imported (`npu`, `hpu`).
    """
    return tuple(_modules())


def modules() -> tuple[Any, ...]:
    """`torch.cuda` and those of all other kinds."""
    return tuple(_modules().values())


def capturing() -> bool:
    """Whether the calling thread's current stream is being captured into a graph."""
    # Asked at every operator: 0.2 µs where nothing is in use.
    if not _with_graphs:
        modules()
    for module in _with_graphs:
        if module.is_initialized() and module.is_current_stream_capturing():
            return True
    return False


def accelerators_in_use() -> list[str]:
    """The kinds of accelerator that this process has started; starts none."""
    return [kind for kind, module in _modules().items() if _started(kind, module)]


def device_names(kind: str) -> list[str]:
    """What the devices of a kind of accelerator are called, which it starts; empty where a maker
    does not tell.
    """
    import torch

    if kind == "mps":
        get_name = getattr(torch.backends.mps, "get_name", None)
        return [] if get_name is None else [get_name()]
    module = _module(kind)
    if not hasattr(module, "get_device_name"):
        return []
    return [str(module.get_device_name(index)) for index in range(module.device_count())]


def forked() -> bool:
    """Whether this is a fork of a process that used an accelerator, which it then cannot use."""
    return any(module._is_in_bad_fork() for module in modules() if hasattr(module, _FORKED))


def device_generators() -> list[tuple[str, DeviceGenerator]]:
    """(name of the device, generator) of all devices of each kind of accelerator in use.

    Starts none: one that the program has not used has no state to tell. Their states are the
    host's, so that reading one waits for nothing.
    """
    found: list[tuple[str, DeviceGenerator]] = []
    for kind in accelerators_in_use():
        if kind == "mps":
            # Made when it is first asked for, by `torch.manual_seed` at the latest.
            found.append((kind, _module(kind)._default_mps_generator))
        else:
            found += [(f"{kind}:{n}", given) for n, given in enumerate(_generators(kind))]
    return found


def generator_of(device: torch.device) -> DeviceGenerator:
    """The global generator of a device, which is started where it is not in use yet."""
    import torch

    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    if device.type not in accelerator_kinds():
        return torch.default_generator
    module = _module(device.type)
    if hasattr(module, "init"):
        module.init()
    index = module.current_device() if device.index is None else device.index
    return _generators(device.type)[index]


def seed_devices(kind: str, seed: int) -> None:
    """Seed the generators of all devices of a kind; those of the host for any but accelerators."""
    import torch

    if kind == "mps":
        torch.mps._get_default_mps_generator().manual_seed(seed)
    elif kind in accelerator_kinds():
        _module(kind).manual_seed_all(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _modules() -> dict[str, Any]:
    return _all(*_others())


def _others() -> tuple[tuple[str, Any], ...]:
    import torch

    # Not by `getattr`: a name that is not there is searched for at length.
    there = vars(torch)
    name = torch._C._get_privateuse1_backend_name()
    return ("hpu", there.get("hpu")), (name, there.get(name))


@functools.cache
def _all(*others: tuple[str, Any]) -> dict[str, Any]:
    import torch

    found = {kind: getattr(torch, kind) for kind in _KNOWN}
    found |= {name: module for name, module in others if hasattr(module, "is_available")}
    _with_graphs[:] = [m for m in found.values() if hasattr(m, "is_current_stream_capturing")]
    return found


def _module(kind: str) -> Any:
    return _modules().get(kind)


def _started(kind: str, module: Any) -> bool:
    if kind == "mps":
        return module._default_mps_generator is not None
    # What another maker's module need not tell: then to import it has started it.
    asked = getattr(module, "is_initialized", module.is_available)
    return bool(asked())


def _generators(kind: str) -> tuple[DeviceGenerator, ...]:
    import torch

    module = _module(kind)
    given: tuple[DeviceGenerator, ...] | None = getattr(module, "default_generators", None)
    if given is not None:
        return tuple(given)
    if not hasattr(module, "get_rng_state"):
        return ()
    return tuple(_ByFunctions(torch.device(kind, n)) for n in range(module.device_count()))
