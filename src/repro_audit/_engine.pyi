"""The native engine: C++ on memory given by address. `cpp/SPEC.md` defines every result.

Addresses are integers, sizes and strides sequences of integers, strides in elements. The memory
is the caller's to keep alive. `threads`: 0 is one for each CPU that the process may use, for
inputs of 8 MiB and more. The GIL is released from 1 MiB on. Bad arguments raise ValueError,
OverflowError or TypeError.
"""

from collections.abc import Sequence
from typing import Any, Final

DIGEST_VERSION: Final[int]

def engines() -> list[str]: ...
def engine() -> str: ...
def select(name: str, /) -> bool: ...
def cpu_features() -> list[str]: ...
def usable_cpus() -> int: ...
def digest(address: int, nbytes: int, tag: int, key: int = 0, threads: int = 0, /) -> bytes: ...
def digest_strided(
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
    address: int, nbytes: int, offset: int, key: int = 0, threads: int = 0, /
) -> tuple[int, int]: ...
def lanes_box(
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
def finalize(lane0: int, lane1: int, nbytes: int, tag: int, /) -> bytes: ...
def multiset(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    key: int = 0,
    threads: int = 0,
    /,
) -> tuple[int, int]: ...
def ulp(
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
def sample(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    count: int,
    /,
) -> bytes: ...
def readable(address: int, nbytes: int, /) -> bool: ...
def read_sum(address: int, nbytes: int, threads: int = 0, /) -> int: ...
def ulp_merge(records: Any, numel: int, /) -> dict[str, Any]: ...
def digest_tensor(tensor: Any, /) -> bytes | None: ...
def digest_shared(array: Any, /) -> bytes | None: ...
def sample_tensor(tensor: Any, count: int, /) -> bytes | None: ...
def digest_tensors(tensors: list[Any], /) -> list[bytes | None]: ...
def exchange(capsule: Any, tensor: type, parameter: type, storage: type, /) -> bool: ...

LAUNCH: Final[dict[str, int]]

def range_source(address: int, nbytes: int, offset: int, /) -> tuple[str, bytes]: ...
def stream_source(
    address: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    limit: int,
    /,
) -> tuple[str, bytes]: ...
def multiset_source(
    address: int, sizes: Sequence[int], strides: Sequence[int], itemsize: int, /
) -> tuple[str, bytes]: ...
