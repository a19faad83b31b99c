"""The devices themselves, as `torch.cuda` has them, and the modules of other makers' devices."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch

from standin.native import KIND, native
from standin.streams import index_of, module

# For which a device is busy, each time that it is asked if it still is.
_CYCLES = 1_000_000


class _Use:
    """Whether the devices are in use by this process, and what is to be done once they are."""

    def __init__(self) -> None:
        self.initialized = self.forked = False
        self._waiting: list[Callable[[], object]] = []
        os.register_at_fork(after_in_child=self._fork)

    def begin(self) -> None:
        if self.forked:
            raise RuntimeError(
                f"Cannot re-initialize {KIND.upper()} in forked subprocess. To use {KIND.upper()} "
                "with multiprocessing, you must use the 'spawn' start method"
            )
        if not _shown():
            raise RuntimeError(f"No {KIND.upper()} GPUs are available")
        if not self.initialized:
            self.initialized = True
            if hasattr(module(), "default_generators"):
                module().default_generators = native.generators()
            for call in self._waiting:
                call()

    def then(self, call: Callable[[], object], **_: Any) -> None:
        if self.initialized:
            call()
        else:
            self._waiting.append(call)

    def _fork(self) -> None:
        self.forked = self.initialized


def _shown() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if KIND == "cuda" else None
    if visible is None:
        return native.devices
    return len([word for word in visible.split(",") if word.strip()])


_use = _Use()


class _Device(contextlib.ContextDecorator):
    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else index_of(device)

    def __enter__(self) -> None:
        self.before = native.current_device()
        if self.idx >= 0:
            native.set_device(self.idx)

    def __exit__(self, *_: object) -> None:
        native.set_device(self.before)


class _Properties:
    name = "Stand-in GPU"
    major, minor = 9, 0
    total_memory = 16 << 30
    multi_processor_count = 4
    warp_size = 32
    gcnArchName = ""
    has_fp64 = True


def _current_device() -> int:
    _use.begin()
    return int(native.current_device())


def _set_device(device: Any) -> None:
    _use.begin()
    native.set_device(index_of(device))


def _synchronize(device: Any = None) -> None:
    _use.begin()
    native.synchronize(index_of(device))


def _set_sync_debug_mode(mode: Any) -> None:
    native.set_sync_debug_mode({"default": 0, "warn": 1, "error": 2}.get(mode, mode))


def _allocated(device: Any = None) -> int:
    return int(native.allocated(index_of(device)))


DEVICES = {
    "_lazy_init": _use.begin,
    "init": _use.begin,
    "_lazy_call": _use.then,
    "is_available": lambda: _shown() > 0,
    "is_initialized": lambda: _use.initialized and not _use.forked,
    "_is_in_bad_fork": lambda: _use.forked,
    "_is_compiled": lambda: True,
    "device_count": _shown,
    "current_device": _current_device,
    "set_device": _set_device,
    "device": _Device,
    "default_generators": (),
    "get_device_name": lambda device=None: _Properties.name,
    "get_device_capability": lambda device=None: (_Properties.major, _Properties.minor),
    "get_device_properties": lambda device=None: _Properties(),
    "is_bf16_supported": lambda *_, **__: True,
    "synchronize": _synchronize,
    "_sleep": lambda cycles: native.sleep(cycles // _CYCLES),
    "set_sync_debug_mode": _set_sync_debug_mode,
    "get_sync_debug_mode": lambda: int(native.sync_debug_mode()),
    "empty_cache": lambda: None,
    "memory_allocated": _allocated,
    "memory_reserved": _allocated,
    "max_memory_allocated": _allocated,
    "mem_get_info": lambda device=None: (8 << 30, 16 << 30),
}


def _generator(device: Any) -> torch.Generator:
    _use.begin()
    return native.generators()[index_of(device)]


def _seed_all(seed: int) -> None:
    # As `torch.manual_seed` has it: what is not in use is seeded once it is.
    _use.then(lambda: [given.manual_seed(seed) for given in native.generators()])


# What torch asks of the module of devices that it does not know, and little more.
OTHER = {
    name: DEVICES[name]
    for name in (
        "_lazy_init",
        "init",
        "is_available",
        "is_initialized",
        "_is_in_bad_fork",
        "device_count",
        "current_device",
        "set_device",
        "synchronize",
        "_sleep",
    )
} | {
    "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
    "get_rng_state": lambda device=None: _generator(device).get_state(),
    "set_rng_state": lambda state, device=None: _generator(device).set_state(state),
    "manual_seed": lambda seed: _generator(None).manual_seed(seed),
    "manual_seed_all": _seed_all,
    "initial_seed": lambda: _generator(None).initial_seed(),
}
