"""Which engine computes: the fastest that this CPU can run, or the one that was forced.

`REPRO_AUDIT_ENGINE` forces one for the process; `select` does from Python. Nothing falls back: a
forced engine that is not there is an error, so that a manifest never names one and uses another.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from repro_audit.engine import kernels as kernel_modules
from repro_audit.errors import EngineError

VARIABLE: Final = "REPRO_AUDIT_ENGINE"
DIGEST_VERSION: Final = 1
REFERENCE: Final = "reference"
TORCH: Final = "torch"

# All that the design knows; those of them that `available` leaves out are not in this build.
KNOWN: Final = ("portable", "avx2", "avx512", "neon", *kernel_modules.NAMES, TORCH, REFERENCE)


class Engine(Protocol):
    """What `repro_audit._engine` and a `by_stream.StreamEngine` both are."""

    def digest(
        self, address: int, nbytes: int, tag: int, key: int = 0, threads: int = 0, /
    ) -> bytes: ...
    def digest_strided(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        tag: int,
        key: int = 0,
        threads: int = 0,
        end: int = 0,
        /,
    ) -> bytes: ...
    def lanes(
        self, address: int, nbytes: int, offset: int, key: int = 0, threads: int = 0, /
    ) -> tuple[int, int]: ...
    def readable(self, address: int, nbytes: int, /) -> bool: ...
    def lanes_box(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        whole: Sequence[int],
        start: Sequence[int],
        key: int = 0,
        threads: int = 0,
        /,
    ) -> tuple[int, int]: ...
    def finalize(self, lane0: int, lane1: int, nbytes: int, tag: int, /) -> bytes: ...
    def multiset(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        key: int = 0,
        threads: int = 0,
        /,
    ) -> tuple[int, int]: ...
    def sample(
        self,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        count: int,
        /,
    ) -> bytes: ...
    def ulp(
        self,
        address_a: int,
        strides_a: Sequence[int],
        address_b: int,
        strides_b: Sequence[int],
        sizes: Sequence[int],
        tag_a: int,
        tag_b: int = 0,
        threads: int = 0,
        /,
    ) -> dict[str, Any]: ...
    def ulp_channels(
        self,
        address_a: int,
        strides_a: Sequence[int],
        address_b: int,
        strides_b: Sequence[int],
        sizes: Sequence[int],
        tag_a: int,
        tag_b: int,
        dim: int,
        threads: int = 0,
        /,
    ) -> list[tuple[int, int, int]]: ...


_engine: Engine | None = None
_name = ""
_forced = False
_listeners: list[Callable[[Engine], None]] = []


def on_change(listener: Callable[[Engine], None]) -> None:
    """Call `listener` with the engine whenever one is chosen: hot paths hold its functions."""
    _listeners.append(listener)
    if _engine is not None:
        listener(_engine)


def _native() -> Any:
    try:
        from repro_audit import _engine as native
    except ImportError as error:
        raise EngineError(
            f"The native engine cannot be loaded ({error}). Reinstall repro-audit, or set "
            f"{VARIABLE}={REFERENCE} to use the slow NumPy one."
        ) from error
    return native


def kernels(device_type: str = "cuda") -> Any:
    """The module of kernels for a device type; None where none is in use for it."""
    wanted = name_for(device_type)
    return kernel_modules.module(wanted) if wanted in kernel_modules.NAMES else None


def available() -> list[str]:
    """Names of the engines that can run here: the CPU's, the fastest first, then the others."""
    cuda = [name for name in kernel_modules.NAMES if not kernel_modules.problem(name)]
    return [*_native().engines(), *cuda, TORCH, REFERENCE]


def select(name: str | None = None) -> str:
    """Use the engine called `name` from now on; None means the environment's choice or the best.

    Returns the name of the engine then in use. Raises EngineError, naming those available, where
    `name` is unknown or not in this build or on this CPU. Not for use while others compute.
    """
    global _engine, _name, _forced
    wanted = name or os.environ.get(VARIABLE) or None
    native = _native()
    best = native.engines()[0]
    chosen: Engine
    if wanted == REFERENCE:
        from repro_audit.engine import by_stream

        chosen = by_stream.of_reference()
    elif wanted == TORCH:
        from repro_audit.engine import torch_ops

        chosen = torch_ops.engine()
    elif wanted in kernel_modules.NAMES and not kernel_modules.problem(wanted):
        native.select(best)  # for what lies on the host
        chosen = native
    else:
        if not native.select(wanted or best):
            what = "is not available here" if wanted in KNOWN else "is no engine"
            why = ""
            if wanted in kernel_modules.NAMES:
                why = f" ({kernel_modules.problem(wanted)})"
            raise EngineError(
                f"The engine {wanted!r} {what}{why}. Available: {', '.join(available())}; choose "
                f"one of these, or unset {VARIABLE}."
            )
        chosen = native
    _engine, _name, _forced = chosen, wanted or best, wanted is not None
    for listener in _listeners:
        listener(chosen)
    return _name


def engine() -> Engine:
    """The engine in use, chosen at the first call."""
    if _engine is None:
        select()
    assert _engine is not None
    return _engine


def name() -> str:
    """Name of the engine in use: `avx2`, `portable`, `reference`."""
    engine()
    return _name


def name_for(device_type: str) -> str:
    """Name of what digests tensors of a device type.

    The CUDA kernels for CUDA's where they can run, compiled or by CuPy; torch's own operations for
    other devices'. A CPU engine that was forced gets copies of them: "portable (host copy)".
    """
    if device_type == "cpu" or name() == TORCH:
        return name()
    if _forced and _name not in kernel_modules.NAMES:
        return f"{_name} (host copy)"
    if device_type != "cuda":
        return TORCH
    ways = (_name,) if _forced else kernel_modules.NAMES
    return next((way for way in ways if not kernel_modules.problem(way)), TORCH)


def info() -> dict[str, Any]:
    """The engine's part of a manifest.

    Names in use and available, whether the choice was forced, the digest algorithm's version, the
    machine and the instruction sets of its CPU that matter here, and how many threads a large
    input is split over.
    """
    engine()
    native = _native()
    return {
        "engine": _name,
        "forced": _forced,
        "available": available(),
        "digest_version": DIGEST_VERSION,
        "machine": platform.machine(),
        "cpu_features": native.cpu_features(),
        "threads": native.usable_cpus(),
    }
