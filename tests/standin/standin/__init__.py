"""Devices that stand in for real ones in a build of torch that knows none.

Loaded by torch itself, as other makers' devices are, in every process whose path has this folder;
`STANDIN_FOLDER` names what CMake built of `cuda/tests/standin`. The devices' memory is the host's,
which code of the host cannot touch; a copy to the host that nobody waits for is late; kernels are
the host's, but ours, whose launches are emulated. Of `torch.cuda` what a program uses works.
`STANDIN_KIND` makes them Intel's (`xpu`), one of Apple's (`mps`, without float64) or, by any other
name, those of a maker that torch does not know: no kernels of ours, and of the latter's module
little more than what torch asks for.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import torch

from standin.devices import DEVICES, OTHER
from standin.native import KIND, kernels, native
from standin.streams import STREAMS


def _restored(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    """A storage that was saved from a device, there again."""
    if not location.startswith(KIND):
        return None
    saved = torch.empty(0, dtype=torch.uint8).set_(storage)
    return saved.to(location).untyped_storage()


def autoload() -> None:
    """Put the devices in `torch.cuda`, `torch.xpu` or a module of their own."""
    if KIND == "cuda":
        _cuda()
    elif KIND == "xpu":
        torch._C._xpu_getCurrentRawStream = lambda index: int(native.current_stream(index))
        _put(torch.xpu, {n: v for n, v in {**DEVICES, **STREAMS}.items() if hasattr(torch.xpu, n)})
    elif KIND == "mps":
        _apple()
    else:
        _other()
    # Before torch's own, which asks for storages that only a build with CUDA can make.
    torch.serialization.register_package(15, lambda storage: None, _restored)


def _cuda() -> None:
    sys.modules["repro_audit._cuda"] = kernels()
    # As if it were not installed: it compiles for a GPU.
    sys.modules["cupy"] = None  # type: ignore[assignment]
    _put(torch.cuda, {**DEVICES, **STREAMS})
    torch.cuda.graphs._graph_pool_handle = STREAMS["graph_pool_handle"]
    # Functions of Python's own: the compiler wants what it traces to be hashable.
    torch._C._cuda_getCurrentRawStream = lambda index: int(native.current_stream(index))
    torch._C._cuda_getDevice = lambda: int(native.current_device())
    torch._C._cuda_setDevice = lambda index: native.set_device(index) or None
    torch._C._host_emptyCache = lambda: None


def _apple() -> None:
    known = {
        "_has_mps": True,
        "_mps_is_available": lambda: True,
        "_mps_is_on_macos_or_newer": lambda major, minor: True,
        "_mps_get_name": lambda: "Stand-in GPU",
        "_mps_get_default_generator": lambda: native.generators()[0],
        "_mps_deviceSynchronize": lambda: native.synchronize(0),
        "_mps_emptyCache": lambda: None,
    }
    for name, value in known.items():
        setattr(torch._C, name, value)


def _other() -> None:
    torch.utils.rename_privateuse1_backend(KIND)
    made = types.ModuleType(f"torch.{KIND}")
    vars(made).update(OTHER)
    torch._register_device_module(KIND, made)
    torch.utils.generate_methods_for_privateuse1_backend()


def _put(module: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(module, name, value)
        if hasattr(module.random, name):
            setattr(module.random, name, value)
