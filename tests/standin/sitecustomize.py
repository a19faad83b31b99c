"""Loads the devices before torch asks, once and for all, whether it has any."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

_found = importlib.util.find_spec("torch")
if _found is not None and _found.origin is not None and "STANDIN_FOLDER" in os.environ:
    for _name in ("libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(Path(_found.origin).parent / "lib" / _name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(Path(os.environ["STANDIN_FOLDER"]) / "libcuda.so.1"), ctypes.RTLD_GLOBAL)
