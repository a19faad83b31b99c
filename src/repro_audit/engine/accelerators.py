"""The accelerators that torch knows or was taught by another maker, and their global generators."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

_FORKED = "_is_in_bad_fork"
_KNOWN = ("cuda", "xpu", "mps", "mtia")
_ASKED = ("is_initialized", "is_current_stream_capturing")
# The modules, by those of other makers that were there, and which of the last tell of captures.
_found: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
_with_graphs: list[Any] = []
# Kinds of which a tensor was seen.
_used: set[str] = set()


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
        state: torch.Tensor = function(_module(self.device.type), "get_rng_state")(self.device)
        return state

    def set_state(self, new_state: torch.Tensor) -> None:
        function(_module(self.device.type), "set_rng_state")(new_state, self.device)


def accelerator_kinds() -> tuple[str, ...]:
    """Names of all kinds of accelerator that torch has a module for, whether any is here or not:
    its own, and that of a maker whose package is imported (`npu`, `hpu`).
    """
    return tuple(_modules())


def homes(module: Any) -> tuple[Any, ...]:
    """Where the functions of `torch.cuda` and its like are: there, and in its module `random`."""
    inner = getattr(module, "random", None)
    return (module,) if inner is None or inner is random else (module, inner)


def function(module: Any, name: str) -> Any:
    """One of them, wherever a maker has put it; None where there is none."""
    found = (getattr(home, name) for home in homes(module) if hasattr(home, name))
    return next(found, None)


def note_use(kind: str) -> None:
    """A tensor of such a device is there: whatever its maker's module tells, it is in use."""
    _used.add(kind)


def capturing() -> bool:
    """Whether the calling thread's current stream is being captured into a graph."""
    # Asked at every operator: 0.2 µs where nothing is in use.
    if not _with_graphs:
        _modules()
    for module in _with_graphs:
        if module.is_initialized() and module.is_current_stream_capturing():
            return True
    return False


def accelerators_in_use() -> list[str]:
    """The kinds of accelerator that this process has started; starts none."""
    return [kind for kind, module in _modules().items() if _started(kind, module)]


def device_names(kind: str) -> list[str]:
    """What the devices of a kind of accelerator are called, which may start them; empty where a
    maker does not tell.
    """
    import torch

    module = _module(kind)
    try:
        if kind == "mps":
            return [torch.backends.mps.get_name()]
        return [str(module.get_device_name(index)) for index in range(module.device_count())]
    except Exception:
        # Whatever a maker's function raises, or asks for: nothing hangs on a name.
        return []


def forked() -> bool:
    """Whether this is a fork of a process that used an accelerator, which it then cannot use."""
    return any(map(_forked, _modules().values()))


def _forked(module: Any) -> bool:
    return hasattr(module, _FORKED) and bool(module._is_in_bad_fork())


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
    """The global generator of a device, which is started where it is not in use yet; the host's of
    one whose maker tells of none.
    """
    import torch

    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    if device.type not in accelerator_kinds():
        return torch.default_generator
    note_use(device.type)
    module = _module(device.type)
    if hasattr(module, "init"):
        module.init()
    index = module.current_device() if device.index is None else device.index
    found = _generators(device.type)
    return found[index] if index < len(found) else torch.default_generator


def seed_devices(kind: str, seed: int) -> None:
    """Seed the generators of all devices of a kind; those of the host for any but accelerators."""
    import torch

    if kind == "mps":
        torch.mps._get_default_mps_generator().manual_seed(seed)
    elif kind in accelerator_kinds():
        seeding = function(_module(kind), "manual_seed_all")
        if seeding is not None:
            seeding(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _modules() -> dict[str, Any]:
    others = _others()
    found = _found.get(others)
    return _looked_for(others) if found is None else found


def _others() -> tuple[tuple[str, Any], ...]:
    import torch

    # Not by `getattr`: a name that is not there is searched for at length.
    there = vars(torch)
    name = torch._C._get_privateuse1_backend_name()
    return ("hpu", there.get("hpu")), (name, there.get(name))


def _looked_for(others: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    import torch

    found = {kind: getattr(torch, kind) for kind in _KNOWN}
    found |= {name: module for name, module in others if hasattr(module, "is_available")}
    _with_graphs[:] = [
        module for module in found.values() if all(hasattr(module, name) for name in _ASKED)
    ]
    # A module may be registered before it is filled.
    if len(found) == len(_KNOWN) + sum(module is not None for _, module in others):
        _found[others] = found
    return found


def _module(kind: str) -> Any:
    return _modules().get(kind)


def _started(kind: str, module: Any) -> bool:
    if kind == "mps":
        return module._default_mps_generator is not None
    # What another maker's module need not tell, or not before its own `init` was called.
    asked = getattr(module, "is_initialized", None)
    return bool(asked is not None and asked()) or (kind in _used and not _forked(module))


def _generators(kind: str) -> tuple[DeviceGenerator, ...]:
    import torch

    module = _module(kind)
    given: tuple[DeviceGenerator, ...] = function(module, "default_generators") or ()
    if given:
        return tuple(given)
    if function(module, "get_rng_state") is None:
        return ()
    return tuple(_ByFunctions(torch.device(kind, n)) for n in range(module.device_count()))
