"""Tensors held as they are for a while, in memory apart from the program's."""

from __future__ import annotations

import ctypes
import mmap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from repro_audit import engine
from repro_audit.capture.calls import Call, Span, rebuilt_tensor

_SMALLEST = 4096


class Memory:
    """Blocks of host memory, used again once nobody holds them.

    Not from the program's heap: what a program finds in memory that it has not written yet is not
    to be what was held.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)

    def copy(self, address: int, nbytes: int) -> Block:
        """A copy of so many bytes."""
        size = max(_SMALLEST, 1 << (nbytes - 1).bit_length())
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        ctypes.memmove(ctypes.addressof(ctypes.c_char.from_buffer(memory)), address, nbytes)
        return Block(memory, free)


class Block:
    """A block of `memory`, given back with the last reference to it."""

    __slots__ = ("_free", "memory")

    def __init__(self, memory: mmap.mmap, free: list[mmap.mmap]) -> None:
        self.memory = memory
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.memory)


@dataclass(frozen=True, slots=True)
class HeldSpan:
    """What a `Span` held when it was copied; `memory` begins with it and `block` owns it."""

    memory: torch.Tensor
    begin: int
    end: int
    address: int
    block: Block | None = None

    def bytes(self) -> torch.Tensor:
        """Its bytes, on the host. Waits for their device."""
        return self.memory.cpu()


class Held:
    """A call, and what it was given, as it is about to be made; or, without `op`, mere tensors.

    What cannot be kept has no place in `places`, which gives the number of a tensor by its id.
    """

    def __init__(
        self,
        memory: Memory,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None = None,
        *,
        op: str = "",
        random: bool = False,
        scratch: Sequence[int] = (),
        limit: int,
    ) -> None:
        self.call = Call(op, args, kwargs or {}, random, scratch)
        self.places = self.call.places()
        self.nbytes = self.call.nbytes
        self.whole = self.nbytes <= limit
        if self.whole:
            self.call.spans = [_held(span, memory) for span in self.call.spans]

    def tensor(self, place: int) -> torch.Tensor:
        """A tensor as it was, on memory that is held."""
        spans = self.call.spans
        places = [
            (span.memory.untyped_storage(), 0) for span in spans if isinstance(span, HeldSpan)
        ]
        return rebuilt_tensor(self.call.json["tensors"][place], places)


def _held(span: Span | HeldSpan, memory: Memory) -> HeldSpan:
    assert isinstance(span, Span)
    nbytes = span.end - span.begin
    device = span.storage.device
    address = span.address
    if device.type == "cpu":
        if not nbytes:
            return HeldSpan(torch.empty(0, dtype=torch.uint8), span.begin, span.end, address)
        block = memory.copy(span.storage.data_ptr() + span.begin, nbytes)
        held = torch.frombuffer(block.memory, dtype=torch.uint8, count=nbytes)
        return HeldSpan(held, span.begin, span.end, address, block)
    with engine.unseen():
        there = span.view()
        try:
            # On the program's stream, after what it has begun: nobody waits.
            copy = there.clone()
        except torch.OutOfMemoryError:
            with engine.aside():
                copy = there.cpu()
    return HeldSpan(copy, span.begin, span.end, address)
