"""The two ways to the CUDA kernels: compiled with the package, or by CuPy at run time.

Asking initialises no driver: a process that did could no longer fork, nor choose its devices.
"""

from __future__ import annotations

import ctypes
import functools
from importlib.util import find_spec
from typing import Any, Final

CUDA: Final = "cuda"
CUPY: Final = "cupy"
NAMES: Final = (CUDA, CUPY)


def module(name: str) -> Any:
    """The module of kernels of that name, which has no `problem`."""
    if name == CUDA:
        return compiled()
    from repro_audit.engine import cupy_kernels

    return cupy_kernels


def compiled() -> Any:
    """The module that this build has; None where it was built without nvcc."""
    try:
        from repro_audit import _cuda
    except ImportError:
        return None
    return _cuda


@functools.cache
def problem(name: str) -> str:
    """Why these kernels cannot run here; empty where they can, given a device."""
    if name == CUDA and compiled() is None:
        return "this build has no CUDA kernels; install with nvcc on the PATH"
    if name == CUPY and find_spec("cupy") is None:
        return "CuPy is not installed; pip install 'repro-audit[cuda13]', or [cuda12]"
    if not driver_version():
        return "there is no NVIDIA driver"
    try:
        compiler = module(name).toolkit()
    except Exception as error:
        # CuPy raises what it likes where libraries of its CUDA are missing.
        return f"CuPy does not load: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return _too_old(name, compiler, driver_version())


def _too_old(name: str, compiler: int, driver: int) -> str:
    # Within a major version an older driver runs what a newer toolkit compiled.
    if driver // 1000 >= compiler // 1000:
        return ""
    way_out = (
        "install with that CUDA's nvcc"
        if name == CUDA
        else f"install CuPy for CUDA {driver // 1000}"
    )
    return (
        f"the kernels are compiled with CUDA {dotted(compiler)} and the driver knows "
        f"{dotted(driver)}; update the driver, or {way_out}"
    )


@functools.cache
def driver() -> ctypes.CDLL | None:
    """NVIDIA's driver; None where there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


@functools.cache
def driver_version() -> int:
    """The newest CUDA that the driver knows, 13000 for 13.0; 0 where there is no driver."""
    library = driver()
    if library is None:
        return 0
    version = ctypes.c_int(0)
    failed: int = library.cuDriverGetVersion(ctypes.byref(version))
    return 0 if failed else version.value


def dotted(version: int) -> str:
    """CUDA's number of a version as people write it: 13.0 for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"
