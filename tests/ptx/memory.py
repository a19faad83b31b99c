"""Memory that knows what may be read and written in it, and who did either since when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .parser import PtxError

Array = npt.NDArray[Any]
_ALL = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SEVERAL = -1
_YES = 0xFF


@dataclass(frozen=True)
class Who:
    """Threads that do something at once: their numbers, blocks, and barriers passed."""

    threads: Array
    blocks: Array
    passed: Array
    block_threads: int


class _Log:
    """Who did one kind of access to each byte last, and after how many barriers of its block."""

    def __init__(self, size: int) -> None:
        # Thread + 1, -(block + 2) for several threads of a block, _SEVERAL for several blocks'.
        self.who = np.zeros(size, np.int32)
        self.passed = np.zeros(size, np.int32)

    def _blocks(self, codes: Array, who: Who) -> Array:
        return np.where(codes > 0, (codes - 1) // who.block_threads, -codes - 2)

    def _apart(self, at: Array, who: Who) -> tuple[Array, Array]:
        """Codes, and which of them a barrier of the same block lies between."""
        codes = self.who[at]
        same = self._blocks(codes, who) == who.blocks[:, None]
        return codes, same & (self.passed[at] < who.passed[:, None])

    def unordered(self, at: Array, who: Who) -> Array:
        """Which threads meet another's access with no barrier between."""
        codes, ordered = self._apart(at, who)
        return ((codes != 0) & (codes != who.threads[:, None] + 1) & ~ordered).any(axis=1)

    def clear(self, size: int) -> None:
        """Forgets who did what to the first bytes."""
        self.who[:size] = 0

    def note(self, at: Array, who: Who) -> Array:
        """Adds accesses; which threads share a byte with another of them."""
        codes, ordered = self._apart(at, who)
        mine = np.broadcast_to(who.threads[:, None] + 1, at.shape).astype(np.int32)
        block = np.broadcast_to(who.blocks[:, None], at.shape)
        alone = (codes == 0) | (codes == mine) | ordered
        same = self._blocks(codes, who) == block
        codes = np.where(alone, mine, np.where(same, -(block + 2), _SEVERAL)).astype(np.int32)
        self.who[at] = codes
        self.passed[at] = who.passed[:, None]
        left = self.who[at]
        lost = left != codes
        if lost.any():
            same = self._blocks(left, who) == block
            self.who[at[lost & same]] = -(block[lost & same] + 2)
            self.who[at[lost & ~same]] = _SEVERAL
        return lost.any(axis=1)


class Memory:
    """`size` bytes for each of `rows` rows, a block's or a thread's, at addresses from `base`.

    Bytes can be read once they are written, by whom nothing but a barrier need tell apart.
    """

    def __init__(self, name: str, size: int, rows: int = 1, base: int = 0, watched: bool = False):
        self.name, self.size, self.base = name, size, base
        self.stride = -(-size // 16) * 16
        self.bytes = np.zeros(self.stride * rows, np.uint8)
        self.readable = np.zeros(self.stride * rows, np.uint8)
        self.writable = np.zeros(self.stride * rows, np.uint8)
        self.views = {w: self.bytes.view(kind) for w, kind in _ALL.items()}
        self.reads, self.writes, self.atomics = (
            (_Log(self.stride * rows) for _ in range(3)) if watched else (None, None, None)
        )

    def _find(self, addresses: Array, rows: Array | int, width: int, count: int) -> Array:
        """The first byte of each access."""
        whole = np.uint64(width * count)
        if np.count_nonzero(addresses & (whole - np.uint64(1))):
            raise PtxError(f"{width * count} bytes at an unaligned address of {self.name} memory")
        at = addresses - np.uint64(self.base)
        if self.size < width * count or np.count_nonzero(at > np.uint64(self.size) - whole):
            beyond = int(addresses[at > np.uint64(max(0, self.size - width * count))][0])
            raise PtxError(f"{beyond:#x} is no address of {self.name} memory")
        return at.astype(np.int64) + rows * self.stride

    def _require(self, allowed: Array, at: Array, width: int, count: int, what: str) -> None:
        flags = allowed.view(_ALL[width])
        for i in range(count):
            wrong = flags[at // width + i] != np.iinfo(_ALL[width]).max
            if np.count_nonzero(wrong):
                where = int(at[wrong][0]) % self.stride + i * width + self.base
                raise PtxError(f"{what} at {where:#x} of {self.name} memory")

    def load(
        self,
        addresses: Array,
        rows: Array | int,
        width: int,
        count: int,
        who: Who,
        nc: bool,
        relaxed: bool = False,
    ) -> list[Array]:
        """`count` numbers of `width` bytes for each address; `relaxed` as an atomic does."""
        at = self._find(addresses, rows, width, count)
        self._require(self.readable, at, width, count, "nothing was written")
        shared = np.count_nonzero(self.writable[at])
        if nc and shared:
            raise PtxError("ld.global.nc of what the kernel may write")
        if shared and self.writes is not None:
            every = at[:, None] + np.arange(width * count)
            if relaxed:
                self._apart(every, who, (self.writes,), "an atomic and another")
                self.atomics.note(every, who)
            else:
                self._apart(every, who, (self.writes, self.atomics), "a read and a write")
                self.reads.note(every, who)
        return [self.views[width][at // width + i] for i in range(count)]

    def store(
        self, addresses: Array, rows: Array | int, width: int, values: list[Array], who: Who
    ) -> None:
        """Writes values to each address, one after another."""
        length = width * len(values)
        at = self._find(addresses, rows, width, len(values))
        self._require(self.writable, at, width, len(values), "nothing may be written")
        every = at[:, None] + np.arange(length)
        if self.writes is not None:
            self._apart(every, who, (self.writes, self.reads, self.atomics), "a write and another")
            if self.writes.note(every, who).any():
                raise PtxError(f"two threads write at once to {self.name} memory")
        for i, value in enumerate(values):
            self.views[width][at // width + i] = value
        self.readable[every] = _YES

    def update(
        self,
        addresses: Array,
        rows: Array | int,
        operation: np.ufunc,
        values: Array,
        who: Who,
    ) -> Array:
        """What was there before each of the atomic operations, which come in order of threads."""
        width = values.dtype.itemsize
        at = self._find(addresses, rows, width, 1)
        self._require(self.readable, at, width, 1, "nothing was written")
        self._require(self.writable, at, width, 1, "nothing may be written")
        every = at[:, None] + np.arange(width)
        if self.atomics is not None:
            self._apart(every, who, (self.writes, self.reads), "an atomic and another")
            self.atomics.note(every, who)
        cells = self.views[width].view(values.dtype)
        before = np.empty_like(values)
        left = np.arange(len(at))
        while len(left):
            _, first = np.unique(at[left], return_index=True)
            now = left[first]
            cell = at[now] // width
            before[now] = cells[cell]
            cells[cell] = operation(before[now], values[now])
            left = np.delete(left, first)
        return before

    def _apart(self, every: Array, who: Who, logs: Any, what: str) -> None:
        for log in logs:
            wrong = log.unordered(every, who)
            if wrong.any():
                thread = int(who.threads[wrong][0])
                where = int(every[wrong][0, 0]) % self.stride + self.base
                raise PtxError(
                    f"{what} access to {where:#x} of {self.name} memory with no barrier between: "
                    f"thread {thread} and another"
                )


class Arena(Memory):
    """A device's memory: what is put there, with gaps between that nothing may touch."""

    def __init__(self, size: int, base: int) -> None:
        super().__init__("global", size, 1, base, watched=True)
        self.used = 0

    def begin(self) -> None:
        """A launch: what others before it did, it comes after."""
        for log in (self.reads, self.writes, self.atomics):
            log.clear(self.used)

    def clear(self) -> None:
        """Takes back all that was reserved."""
        self.begin()
        self.readable[: self.used] = 0
        self.writable[: self.used] = 0
        self.used = 0

    def reserve(self, nbytes: int, shift: int = 0, align: int = 256) -> int:
        """An address that is `shift` bytes past a multiple of `align`, of bytes not written yet."""
        at = -(-(self.used + 64) // align) * align + shift
        if at + nbytes > self.size:
            raise PtxError("the device's memory is full")
        self.used = at + nbytes
        self.writable[at : at + nbytes] = _YES
        return self.base + at

    def put(self, data: bytes, shift: int = 0, align: int = 256, writable: bool = False) -> int:
        """The address of a copy of some bytes, which kernels read only, or change as well."""
        address = self.reserve(len(data), shift, align)
        at = slice(address - self.base, address - self.base + len(data))
        self.bytes[at] = np.frombuffer(data, np.uint8)
        self.readable[at] = _YES
        self.writable[at] = _YES if writable else 0
        return address

    def get(self, address: int, nbytes: int) -> bytes:
        """Bytes that all have been written."""
        at = slice(address - self.base, address - self.base + nbytes)
        if not self.readable[at].all():
            raise PtxError(f"the kernel left some of {nbytes} bytes at {address:#x} unwritten")
        return self.bytes[at].tobytes()
