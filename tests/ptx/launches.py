"""The project's kernels, compiled to PTX and launched on a `Machine` by the project's own code.

Names, grids and arguments are those of `repro_audit.engine.cupy_kernels`: of CuPy itself only what
it would ask a device for is stood in for.
"""

from __future__ import annotations

import fcntl
import functools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest

from repro_audit import _engine
from repro_audit.engine import cupy_kernels, reference_ulp

from .machine import Machine, Order
from .memory import Arena
from .parser import parse

ROOT = Path(__file__).parents[2]
QUEUE = (0, 77)
# As CMakeLists.txt compiles them.
_NVCC = ("-std=c++20", "-fmad=false", "-Icpp/include", "-Icuda/include", "-O3", "-DNDEBUG")
_UNSIGNED = {1: "h", 2: "t", 4: "j", 8: "m"}
_SIGNED = {1: "a", 2: "s", 4: "i", 8: "l"}
_SPECIAL = {"ieee": 0, "fn": 1, "fnuz": 2}


def mangled(name: str) -> str:
    """The beginning of what a compiler calls a kernel, by the Itanium C++ ABI."""
    kind, _, arguments = name.removeprefix("repro_audit::cuda::").removesuffix(">").partition("<")
    parts = []
    for argument in arguments.split(", "):
        plain = argument.removeprefix("repro_audit::cuda::")
        if plain.startswith("repro_audit::FormatOf"):
            parts.append(_format(int(plain.partition("Tag>(")[2].partition(")")[0])))
        elif plain.isdecimal():
            parts.append(f"Li{plain}E")
        else:
            source, _, width = plain.removesuffix(">").partition("<")
            parts.append(f"NS0_{len(source)}{source}ILi{width}EE")
    return f"_ZN11repro_audit4cuda{len(kind)}{kind}I{''.join(parts)}E"


def _format(tag: int) -> str:
    """The mangled type of a dtype's format."""
    f = reference_ulp.format_of(tag)
    unsigned = _UNSIGNED[f.width]
    if f.kind == "e8m0":
        return "NS_13Float8E8M0FNUE"
    if f.kind in {"signed", "unsigned"}:
        number = _SIGNED[f.width] if f.kind == "signed" else unsigned
        return f"NS_7IntegerI{unsigned}{number}EE"
    sizes = "".join(f"Li{n}E" for n in (f.exponent, f.fraction, f.bias))
    return f"NS_5FloatI{unsigned}{sizes}LNS_7SpecialE{_SPECIAL[f.kind]}EEE"


class Kernels(Protocol):
    """Compiled kernels by the names that `cupy_kernels` has for them."""

    def find(self, name: str) -> tuple[Machine, str]:
        """The machine that has a kernel, and the kernel's name there."""


def _by_nvcc(file: str, architecture: str, shared: Path) -> str:
    """Compiled by whichever of the processes that share a directory comes first."""
    held = shared / f"{file}-{architecture}.ptx"
    with held.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not held.exists():
            command = ["nvcc", "-ptx", f"-arch=compute_{architecture}", *_NVCC, "-o", "-"]
            done = subprocess.run(
                [*command, f"cuda/src/{file}.cu"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            held.write_text(done.stdout)
    return held.read_text()


class Nvcc:
    """What nvcc makes of some files of cuda/src, all of which are compiled at once."""

    def __init__(self, architecture: str, names: dict[str, list[str]], shared: Path) -> None:
        self._files = {name: file for file, each in names.items() for name in each}
        self._machines: dict[str, Machine] = {}
        pool = ThreadPoolExecutor(len(names))
        self._texts = {file: pool.submit(_by_nvcc, file, architecture, shared) for file in names}
        pool.shutdown(wait=False)

    def find(self, name: str) -> tuple[Machine, str]:
        """As `Kernels.find`: the only one whose name begins so."""
        file = self._files[name]
        if file not in self._machines:
            self._machines[file] = Machine(parse(self._texts[file].result()))
        machine, start = self._machines[file], mangled(name)
        (found,) = [each for each in machine.module.functions if each.startswith(start)]
        return machine, found


class Nvrtc:
    """What CuPy's NVRTC makes of the kernels, with all the options that CuPy adds."""

    def __init__(self, architecture: str, names: dict[str, list[str]]) -> None:
        every = tuple(name for each in names.values() for name in each)
        self._loaded: dict[str, Any] = {}
        self._compile(architecture, every)
        self._machine = Machine(parse(self._loaded["ptx"]))

    def _compile(self, architecture: str, names: tuple[str, ...]) -> None:
        from cupy.cuda import compiler

        module = SimpleNamespace(
            load=lambda ptx: self._loaded.update(ptx=ptx.decode()),
            _set_mapping=lambda mapping: self._loaded.update(names=mapping),
        )
        arch = f"-arch=compute_{architecture}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CUPY_CACHE_IN_MEMORY", "1")
            patch.setattr(compiler, "function", SimpleNamespace(Module=lambda: module))
            # CuPy asks for machine code, and the device for its architecture.
            patch.setattr(
                compiler, "_get_arch_for_options_for_nvrtc", lambda arch_=None: (arch, "ptx")
            )
            compiler._compile_module_with_cache(
                cupy_kernels.SOURCE,
                cupy_kernels.options(),
                arch=architecture,
                name_expressions=names,
            )

    def find(self, name: str) -> tuple[Machine, str]:
        """As `Kernels.find`, by the names that NVRTC tells."""
        return self._machine, self._loaded["names"][name]


@functools.cache
def _memory() -> Arena:
    """Made once: it is large."""
    return Arena(1 << 22, 0x7F0000000000)


class Device:
    """A device with empty memory, which `cupy_kernels` launches kernels on."""

    def __init__(self, kernels: Kernels, patch: pytest.MonkeyPatch) -> None:
        self.kernels = kernels
        self.order: Order = "together"
        self.launched: list[tuple[str, int]] = []
        self.multiprocessors = 1
        self.memory = _memory()
        self.memory.clear()
        compiler = SimpleNamespace(CompileException=RuntimeError)
        cuda = SimpleNamespace(Device=lambda index: nullcontext(), compiler=compiler)
        patch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
        patch.setattr(cupy_kernels, "_compiled", self._kernel)
        patch.setattr(cupy_kernels, "_multiprocessors", lambda device: self.multiprocessors)

    def _kernel(self, name: str, device: int) -> Any:
        def launch(grid: Any, block: Any, arguments: Any, *, stream: Any) -> None:
            machine, function = self.kernels.find(name)
            self.launched.append((name, grid[0]))
            given = [argument.tobytes() for argument in arguments]
            machine.launch(function, grid[0], block[0], given, self.memory, self.order)

        return launch

    def sums(self, count: int = 1) -> int:
        """The address of sums to add to, which are not 0."""
        return self.memory.put(bytes(range(16)) * count, align=16, writable=True)

    def added(self, address: int, count: int = 1) -> list[tuple[int, int]]:
        """What was added to them."""
        start = np.frombuffer(bytes(range(16)), np.uint64)
        found = np.frombuffer(self.memory.get(address, 16 * count), np.uint64).reshape(-1, 2)
        return [(int(a), int(b)) for a, b in found - start]

    def lanes(self, data: bytes, offset: int, key: int, shift: int = 0) -> tuple[int, int]:
        """The lanes of bytes that lie `shift` bytes off alignment."""
        out = self.sums()
        cupy_kernels.add_range(self.memory.put(data, shift), len(data), offset, key, out, *QUEUE)
        return self.added(out)[0]

    def compare(self, tag: int, a: bytes, b: bytes, shift: int = 0) -> dict[str, Any]:
        """The ULP divergence of two arrays of codes, `shift` bytes off alignment."""
        numel = len(a) // reference_ulp.format_of(tag).width
        count = cupy_kernels.compare_records(numel, 0)
        records = self.memory.reserve(count * cupy_kernels.RECORD_BYTES)
        places = self.memory.put(a, shift), self.memory.put(b, shift)
        cupy_kernels.compare(tag, *places, numel, records, *QUEUE)
        found = np.frombuffer(self.memory.get(records, count * cupy_kernels.RECORD_BYTES), np.uint8)
        return dict(_engine.ulp_merge(found, numel))
