"""CUDA devices that stand in for real ones in a build of torch that knows none.

Loaded by torch itself, as other makers' devices are, in every process whose path has this folder;
`STANDIN_FOLDER` names what CMake built of `cuda/tests/standin`. The devices' memory is the host's,
which code of the host cannot touch; a copy to the host that nobody waits for is late; kernels are
the host's, but ours, whose launches are emulated. Of `torch.cuda` what a program uses works.
"""

from __future__ import annotations

import sys

import torch

from standin.devices import DEVICES
from standin.native import kernels, native
from standin.streams import STREAMS


def _restored(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    """A storage that was saved from a device, there again."""
    if not location.startswith("cuda"):
        return None
    saved = torch.empty(0, dtype=torch.uint8).set_(storage)
    return saved.to(location).untyped_storage()


def autoload() -> None:
    """Put the devices in `torch.cuda`."""
    sys.modules["repro_audit._cuda"] = kernels()
    # As if it were not installed: it compiles for a GPU.
    sys.modules["cupy"] = None  # type: ignore[assignment]
    for name, value in {**DEVICES, **STREAMS}.items():
        setattr(torch.cuda, name, value)
        if hasattr(torch.cuda.random, name):
            setattr(torch.cuda.random, name, value)
    torch.cuda.graphs._graph_pool_handle = STREAMS["graph_pool_handle"]
    # Functions of Python's own: the compiler wants what it traces to be hashable.
    torch._C._cuda_getCurrentRawStream = lambda index: int(native.current_stream(index))
    torch._C._cuda_getDevice = lambda: int(native.current_device())
    torch._C._cuda_setDevice = lambda index: native.set_device(index) or None
    torch._C._host_emptyCache = lambda: None
    # Before torch's own, which asks for storages that only a build with CUDA can make.
    torch.serialization.register_package(15, lambda storage: None, _restored)
