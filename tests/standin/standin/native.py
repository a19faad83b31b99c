"""The library's functions, and `repro_audit._cuda` with emulated launches."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import types
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(os.environ.get("STANDIN_FOLDER", "none"))
# The devices that these stand in for; any name but `cuda` and `xpu` is another maker's.
KIND = os.environ.get("STANDIN_KIND", "cuda")


def _raised(said: bytes | None, *_: object) -> None:
    if said is not None:
        raise RuntimeError(said.decode())


class _Native:
    def __init__(self) -> None:
        library = ctypes.PyDLL(str(FOLDER / "libcuda.so.1"))
        self.devices: int = library.standin_devices()
        self.current_device = library.standin_current_device
        self.set_device = library.standin_set_device
        self.current_stream = library.standin_current_stream
        self.current_stream.restype = ctypes.c_longlong
        self.sleep = library.standin_sleep
        self.sleep.argtypes = [ctypes.c_longlong]
        self.set_sync_debug_mode = library.standin_set_sync_debug_mode
        self.sync_debug_mode = library.standin_sync_debug_mode
        self.allocated = library.standin_allocated
        self.allocated.restype = ctypes.c_ulonglong
        self.open, self.close = library.standin_open, library.standin_close
        self.capturing = library.standin_capturing
        self.graph = library.standin_graph
        self.graph.restype = ctypes.c_void_p
        self.begin_capture = self._telling(library.standin_begin_capture, ctypes.c_void_p)
        self.end_capture = self._telling(library.standin_end_capture, ctypes.c_void_p)
        self.replay = self._telling(library.standin_replay, ctypes.c_void_p)
        self.synchronize = self._telling(library.standin_synchronize, ctypes.c_int)
        self.touch = self._telling(
            library.standin_touch,
            ctypes.c_void_p,
            ctypes.c_ulonglong,
            ctypes.c_int,
            ctypes.c_longlong,
            ctypes.c_int,
        )
        self._generator = library.standin_generator
        self._generator.restype = ctypes.py_object

    def _telling(self, function: Any, *arguments: Any) -> Any:
        """One whose errors are RuntimeErrors."""
        function.argtypes, function.restype = arguments, ctypes.c_char_p
        function.errcheck = _raised
        return function

    def generators(self) -> tuple[torch.Generator, ...]:
        """The global one of each device."""
        return tuple(self._generator(index) for index in range(self.devices))


native = _Native()


def _of(tensor: torch.Tensor) -> tuple[int, int]:
    with torch._C.DisableTorchFunction():
        if not tensor.is_cuda:
            return 0, 0
        return _extent(tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.element_size())


def _extent(address: int, sizes: Any, strides: Any, item: int, *_: Any) -> tuple[int, int]:
    if 0 in sizes:
        return address, 0
    reach = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return address, (reach + 1) * item


def _widths(tag: int) -> int:
    from repro_audit.engine.reference_ulp import format_of

    return int(format_of(tag).width)


# What a launch reads, by its arguments: addresses, with how many bytes.
_READ: dict[str, Callable[[Any], list[tuple[int, int]]]] = {
    "add_range": lambda given: [given[:2]],
    "add_strided": lambda given: [_extent(*given)],
    "add_multiset": lambda given: [_extent(*given)],
    "add_table": lambda given: list(given[0]),
    "add_tensor": lambda given: [_of(given[0])],
    "add_tensors": lambda given: [_of(tensor) for tensor in given[0]],
    "sample": lambda given: [_extent(*given)],
    "compare": lambda given: [(at, given[3] * _widths(given[0])) for at in given[1:3]],
}
# How much it writes, to its third argument from behind.
_LANES = 16
_WRITTEN: dict[str, Callable[[Any], int]] = {
    "add_table": lambda given: _LANES * len(given[0]),
    "add_tensors": lambda given: _LANES * len(given[0]),
    "sample": lambda given: given[3] * given[4],
    "compare": lambda given: 1,
}
_READS, _WRITES, _ADDS = range(3)


def kernels() -> types.ModuleType:
    """`repro_audit._cuda`; while one of its functions runs, the devices' memory is open."""
    (path,) = FOLDER.glob("_cuda*.so")
    loader = ExtensionFileLoader("repro_audit._cuda", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)

    def opened(name: str, function: Any) -> Any:
        reads = _READ.get(name)
        written = _WRITTEN.get(name, lambda given: _LANES)
        writes = _ADDS if name.startswith("add") else _WRITES

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            if reads is not None:
                if native.capturing():
                    raise RuntimeError("a kernel was launched on a stream that is being captured")
                for address, nbytes in reads(args):
                    native.touch(address, nbytes, *args[-2:], _READS)
                native.touch(args[-3], written(args), *args[-2:], writes)
            native.open()
            try:
                return function(*args)
            finally:
                native.close()

        return call

    made = types.ModuleType(loader.name)
    for name, value in vars(found).items():
        setattr(made, name, opened(name, value) if callable(value) else value)
    return made
