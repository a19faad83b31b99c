"""The CUDA kernels, in builds that have them: launches on a device's memory, given by address.

Each launch is asynchronous on `stream` (a `cudaStream_t` as an integer, 0 for the default one) of
device `device`. The `add_` functions add two 64-bit lanes, for each tensor, to device memory at
`out`. Raises RuntimeError with CUDA's words where a launch is refused.
"""

from collections.abc import Sequence
from typing import Any, Final

RECORD_BYTES: Final[int]

def toolkit() -> int: ...
def add_range(
    address: int, nbytes: int, offset: int, key: int, out: int, device: int, stream: int, /
) -> None: ...
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
) -> None: ...
def add_table(
    places: Sequence[tuple[int, int]], key: int, out: int, device: int, stream: int, /
) -> None: ...
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
) -> None: ...
def compare_records(numel: int, device: int, /) -> int: ...
def compare(
    tag: int, a: int, b: int, numel: int, records: int, device: int, stream: int, /
) -> None: ...
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
) -> None: ...
def exchange(capsule: Any, tensor: type, parameter: type, storage: type, /) -> bool: ...
def add_tensor(tensor: Any, out: int, device: int, stream: int, /) -> tuple[int, int] | None: ...
def add_tensors(
    tensors: list[Any], out: int, device: int, stream: int, /
) -> list[tuple[int, int] | None]: ...
def load(device: int, /) -> None: ...
def make_stream(device: int, /) -> int: ...
