"""The CUDA kernels compiled at run time: CuPy's NVRTC on the headers that the package carries.

For builds without nvcc. The functions are those of `repro_audit._cuda`, launched by CuPy: some ten
microseconds of the host's time each, where `_cuda` takes a few. CuPy keeps what it compiled in its
own cache; the first use of a kernel takes seconds.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from repro_audit import _engine
from repro_audit.engine import cuda_graphs
from repro_audit.engine.tags import ITEMSIZES, NAMES, PARTS, TAGS
from repro_audit.errors import EngineError, UnsupportedTensorError

_NAMESPACE: Final = "repro_audit::cuda::"
SOURCE: Final = '#include "repro_audit/cuda/kernels.cuh"\n'
RECORD_BYTES: Final = _engine.LAUNCH["record_bytes"]


def options() -> tuple[str, ...]:
    """What the kernels are compiled with: no contraction, as everywhere.

    The NVRTC that torch's builds for CUDA 13.0 bring takes a lambda in a function for both sides
    for one of the host alone, and refuses it, unless what is not annotated is the device's.
    """
    headers = Path(_engine.__file__).parent / "include"
    return ("-std=c++20", "--fmad=false", "-default-device", f"-I{headers}")


def stream_kernel(source: str) -> str:
    """The digest's kernel for a type of source."""
    return f"{_NAMESPACE}stream_kernel<{_NAMESPACE}{source}>"


def table_kernel(rows: int) -> str:
    """The digest's kernel for a table of so many rows."""
    return f"{_NAMESPACE}table_kernel<{rows}>"


def multiset_kernel(itemsize: int, source: str) -> str:
    """The multiset digest's kernel."""
    return f"{_NAMESPACE}multiset_kernel<{itemsize}, {_NAMESPACE}{source}>"


def sample_kernel(itemsize: int) -> str:
    """The kernel that gathers samples."""
    return f"{_NAMESPACE}sample_kernel<{itemsize}>"


def ulp_kernel(dtype: str, source: str) -> str:
    """The kernel of ULP divergence for a dtype."""
    tag = f"static_cast<repro_audit::Tag>({TAGS[dtype]})"
    kind = f"repro_audit::FormatOf<{tag}>::Type"
    return f"{_NAMESPACE}ulp_kernel<{kind}, {_NAMESPACE}{source}>"


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream as CuPy's launches take it: by its address."""

    ptr: int


# NVRTC that two threads use at once for the first time does not find its library in one of them.
_compiling = threading.RLock()


@functools.cache
def _compiled(name: str, device: int) -> Any:
    """A kernel on a device, which is current, and loaded there."""
    import cupy

    # To load code is what a capture of another thread's would not outlive.
    with _compiling, cuda_graphs.aside():
        module = cupy.RawModule(code=SOURCE, options=options(), name_expressions=(name,))
        kernel = module.get_function(name)
        # It is loaded when it is first asked for.
        assert kernel.kernel is not None
    return kernel


@functools.cache
def _multiprocessors(device: int) -> int:
    import cupy

    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


def _grid(warps: int, threads: str, per_multiprocessor: str, device: int) -> int:
    block, most = _engine.LAUNCH[threads], _engine.LAUNCH[per_multiprocessor]
    wanted = (warps * 32 + block - 1) // block
    return max(1, min(wanted, _multiprocessors(device) * most))


def _launch(
    name: str, grid: int, threads: str, arguments: tuple[Any, ...], device: int, stream: int
) -> None:
    import cupy

    # Structures are passed by value as arrays of one element that is all of it, numbers as u64.
    given = tuple(
        np.frombuffer(a, np.dtype((np.void, len(a)))) if isinstance(a, bytes) else np.uint64(a)
        for a in arguments
    )
    try:
        with cupy.cuda.Device(device):
            # Not made CuPy's current stream: its class of others' streams warns that it will go.
            kernel = _compiled(name, device)
            kernel((grid,), (_engine.LAUNCH[threads],), given, stream=_Stream(stream))
    except cupy.cuda.compiler.CompileException as error:
        raise EngineError(
            f"CuPy's NVRTC does not compile the kernels: {str(error).splitlines()[0]}. "
            "REPRO_AUDIT_ENGINE=torch does without them."
        ) from error


def load(device: int, /) -> None:
    """As `_cuda.load`: nothing, for a kernel is compiled and loaded aside when it is first used."""


def toolkit() -> int:
    """The CUDA of CuPy's NVRTC; as `_cuda.toolkit`."""
    from cupy_backends.cuda.libs import nvrtc

    major, minor = nvrtc.getVersion()
    return 1000 * int(major) + 10 * int(minor)


def add_range(
    address: int, nbytes: int, offset: int, key: int, out: int, device: int, stream: int, /
) -> None:
    """As `_cuda.add_range`."""
    if nbytes == 0:
        return
    source, held = _engine.range_source(address, nbytes, offset)
    _launch(
        stream_kernel(source),
        _grid(nbytes // 1024 + 2, "threads", "blockwise", device),
        "threads",
        (held, offset, offset + nbytes, key, out),
        device,
        stream,
    )


def add_strided(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    key: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None:
    """As `_cuda.add_strided`."""
    nbytes = _nbytes(sizes, itemsize)
    if nbytes == 0:
        return
    source, held = _engine.stream_source(address, sizes, strides, itemsize, 16)
    _launch(
        stream_kernel(source),
        _grid(nbytes // 1024 + 1, "threads", "blockwise", device),
        "threads",
        (held, 0, nbytes, key, out),
        device,
        stream,
    )


def add_table(
    places: Sequence[tuple[int, int]], key: int, out: int, device: int, stream: int, /
) -> None:
    """As `_cuda.add_table`."""
    few, most = _engine.LAUNCH["few_rows"], _engine.LAUNCH["most_rows"]
    for first in range(0, len(places), most):
        some = places[first : first + most]
        rows = few if len(some) <= few else most
        table = np.zeros((rows, 3), np.uint64)
        table[: len(some), :2] = some
        units = -(-table[: len(some), 1].astype(np.int64) // _engine.LAUNCH["unit_bytes"])
        table[: len(some), 2] = np.cumsum(units) - units
        if not units.sum():
            continue
        _launch(
            table_kernel(rows),
            _grid(int(units.sum()), "threads", "blockwise", device),
            "threads",
            (table.tobytes(), len(some), int(units.sum()), key, out + 16 * first),
            device,
            stream,
        )


def add_multiset(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    key: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None:
    """As `_cuda.add_multiset`."""
    nbytes = _nbytes(sizes, itemsize)
    if nbytes == 0:
        return
    source, held = _engine.multiset_source(address, sizes, strides, itemsize)
    _launch(
        multiset_kernel(itemsize, source),
        _grid(nbytes // 512 + 1, "threads", "threadwise", device),
        "threads",
        (held, nbytes, key, out),
        device,
        stream,
    )


def compare_records(numel: int, device: int, /) -> int:
    """As `_cuda.compare_records`."""
    return _grid(numel // 64 + 1, "ulp_threads", "threadwise", device)


def compare(
    tag: int, a: int, b: int, numel: int, records: int, device: int, stream: int, /
) -> None:
    """As `_cuda.compare`."""
    dtype = NAMES[tag]
    if dtype in PARTS or dtype == "float4_e2m1fn_x2":
        raise ValueError("compare: no dtype with a distance of its own")
    itemsize = ITEMSIZES[dtype]
    if (a | b) % itemsize:
        raise ValueError("elements at unaligned addresses")
    width = 16 if (a | b) % 16 == 0 else itemsize
    held = [np.array([at, 0, numel * itemsize], np.uint64).tobytes() for at in (a, b)]
    _launch(
        ulp_kernel(dtype, f"Contiguous<{width}>"),
        compare_records(numel, device),
        "ulp_threads",
        (*held, numel, records),
        device,
        stream,
    )


def sample(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    count: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None:
    """As `_cuda.sample`."""
    if count > _nbytes(sizes, itemsize) // itemsize:
        raise ValueError("count: more than there are elements")
    if count == 0:
        return
    source, held = _engine.stream_source(address, sizes, strides, itemsize, itemsize)
    if source != f"Pieces<{itemsize}>":
        raise ValueError("elements at unaligned addresses")
    _launch(
        sample_kernel(itemsize),
        _grid(count // 32 + 1, "threads", "threadwise", device),
        "threads",
        (held, count, out),
        device,
        stream,
    )


def exchange(capsule: Any, tensor: type, parameter: type, storage: type, /) -> bool:
    """As `_cuda.exchange`: here tensors are asked in Python."""
    return True


def add_tensor(tensor: Any, out: int, device: int, stream: int, /) -> tuple[int, int] | None:
    """As `_cuda.add_tensor`, for tensors of any type that have plain memory."""
    return add_tensors([tensor], out, device, stream)[0]


def add_tensors(
    tensors: list[Any], out: int, device: int, stream: int, /
) -> list[tuple[int, int] | None]:
    """As `_cuda.add_tensors`."""
    from repro_audit.engine import views

    found: list[tuple[int, int] | None] = []
    places: list[tuple[int, int]] = []
    with views.unseen():
        for at, given in enumerate(tensors):
            places.append((0, 0))
            found.append(None)
            if given.is_conj() or given.is_neg():
                continue
            try:
                t = views.resolved(given)
            except UnsupportedTensorError:
                continue
            found[at] = (t.nbytes, TAGS[views.dtype_name(t)])
            if t.is_contiguous():
                places[at] = (t.data_ptr(), t.nbytes)
            else:
                place = (t.data_ptr(), tuple(t.shape), t.stride(), t.itemsize)
                add_strided(*place, 0, out + 16 * at, device, stream)
    if len(places) == 1 and places[0][1]:
        add_range(*places[0], 0, 0, out, device, stream)
    else:
        add_table(places, 0, out, device, stream)
    return found


def make_stream(device: int, /) -> int:
    """As `_cuda.make_stream`."""
    import cupy

    with cupy.cuda.Device(device):
        stream = cupy.cuda.Stream(non_blocking=True)
    _streams.append(stream)
    return int(stream.ptr)


_streams: list[Any] = []


def _nbytes(sizes: Sequence[int], itemsize: int) -> int:
    for size in sizes:
        itemsize *= size
    return itemsize
