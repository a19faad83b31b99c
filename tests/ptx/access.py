"""Loads, stores, atomic operations and conversions of addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .body import Body, Run, Surroundings, Threads
from .memory import Array, Memory, Who
from .operations import TYPES
from .parser import Address, Instruction, Operand, PtxError, Symbol, Vector

# A memory, addresses in it, and the row of each thread's.
Place = Callable[[Threads], tuple[Memory, Array, Any]]
_SPACES = {"global", "shared", "param"}
_ATOMICS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}
# Where generic addresses of other memory than the device's are.
WINDOWS = {"shared": 1 << 28, "param": 1 << 29}
WINDOW_BYTES = 1 << 28


class Memories(Surroundings, Protocol):
    """What memory a launch has."""

    def who(self, at: Threads) -> Who:
        """The threads themselves."""

    def space(self, name: str, at: Threads) -> tuple[Memory, Any]:
        """A state space, and the row of each thread in it."""


def memory_instruction(body: Body, around: Memories, instruction: Instruction) -> Run | None:
    """What an instruction does, if it is one of memory."""
    parts, operands = instruction.parts, instruction.operands
    if parts[0] == "ld":
        return _load(body, around, parts[1:], operands)
    if parts[0] == "st":
        return _store(body, around, parts[1:], operands)
    if parts[0] == "atom":
        return _atom(body, around, parts[1:], operands)
    if parts[0] == "red":
        return _atom(body, around, parts[1:], [Symbol("_"), *operands])
    if parts[0] == "cvta":
        return _cvta(body, parts[1:], operands)
    return None


def _place(body: Body, around: Memories, space: str, operand: Operand) -> Place:
    if not isinstance(operand, Address):
        raise PtxError(f"{operand} is no address")
    offset = np.uint64(operand.offset % (1 << 64))
    if isinstance(operand.base, Symbol):
        name = operand.base.name
        if body.function.owns(name):
            if space != "param":
                raise PtxError(f"{name} in {space} memory")

            def own(at: Threads) -> tuple[Memory, Array, Any]:
                threads = around.who(at).threads
                return body.variables[name], np.full(len(threads), offset), threads

            return own

        def named(at: Threads) -> tuple[Memory, Array, Any]:
            memory, rows = around.space(space, at)
            address = np.uint64(around.address(name)) + offset
            return memory, np.full(len(around.who(at).threads), address), rows

        return named
    cell = body.cells[operand.base.name]
    kind = f"u{8 * cell.kind.itemsize}"
    if kind not in ({"u64", "u32"} if space == "shared" else {"u64"}):
        raise PtxError(f"{operand.base.name} as an address")

    def pointed(at: Threads) -> tuple[Memory, Array, Any]:
        # In 32 bits an address comes round: compilers go below a variable and back by the offset.
        addresses = (cell.read(at) + offset.astype(cell.kind)).astype(np.uint64)
        found = space or _space(addresses)
        if not space and found != "global":
            addresses = addresses - np.uint64(WINDOWS[found])
        memory, rows = around.space(found, at)
        return memory, addresses, rows

    return pointed


def _space(addresses: Array) -> str:
    """The state space that generic addresses are of: all of one."""
    for name, base in WINDOWS.items():
        inside = (addresses >= np.uint64(base)) & (addresses < np.uint64(base + WINDOW_BYTES))
        if inside.all():
            return name
        if inside.any():
            raise PtxError("generic addresses of different memory at once")
    return "global"


def _modifiers(parts: tuple[str, ...], known: set[str]) -> tuple[str, set[str], int, str]:
    """State space, what else is said, how many at once, and the type of each."""
    *said, kind = parts
    space = said.pop(0) if said and said[0] in _SPACES else ""
    count = int(said.pop()[1:]) if said and said[-1] in {"v2", "v4"} else 1
    if kind not in TYPES or kind == "pred" or not set(said) <= known or len(said) > 1:
        raise PtxError("an unknown instruction")
    return space, set(said), count, kind


def _parts(operand: Operand, count: int) -> tuple[Operand, ...]:
    if count == 1:
        return (operand,)
    if not isinstance(operand, Vector) or len(operand.parts) != count:
        raise PtxError(f"{operand} is no vector of {count}")
    return operand.parts


def _load(body: Body, around: Memories, parts: tuple[str, ...], operands: Any) -> Run:
    # "ld.volatile has the same memory synchronization semantics as ld.relaxed.sys."
    volatile = parts[0] == "volatile"
    space, said, count, kind = _modifiers(parts[1:] if volatile else parts, {"nc"})
    nc = "nc" in said
    if (nc and space != "global") or (volatile and (nc or count > 1 or space != "shared")):
        raise PtxError("an unknown instruction")
    writes = [body.write(part, kind, loose=True) for part in _parts(operands[0], count)]
    place, dtype = _place(body, around, space, operands[1]), TYPES[kind]

    def load(at: Threads) -> None:
        memory, addresses, rows = place(at)
        values = memory.load(addresses, rows, dtype.itemsize, count, around.who(at), nc, volatile)
        for write, value in zip(writes, values, strict=True):
            write(at, value.view(dtype))

    return load


def _store(body: Body, around: Memories, parts: tuple[str, ...], operands: Any) -> Run:
    space, _, count, kind = _modifiers(parts, set())
    reads = [body.read(part, kind, loose=True) for part in _parts(operands[1], count)]
    place, dtype = _place(body, around, space, operands[0]), TYPES[kind]
    unsigned = f"u{dtype.itemsize}"

    def store(at: Threads) -> None:
        memory, addresses, rows = place(at)
        values = [read(at).view(unsigned) for read in reads]
        memory.store(addresses, rows, dtype.itemsize, values, around.who(at))

    return store


def _atom(body: Body, around: Memories, parts: tuple[str, ...], operands: Any) -> Run:
    if len(parts) != 3 or parts[0] not in {"global", "shared"} or parts[1] not in _ATOMICS:
        raise PtxError("an unknown instruction")
    space, name, kind = parts
    if kind not in {"u32", "u64", "s32", "s64", "b32", "b64"}:
        raise PtxError("an unknown instruction")
    write, read = body.write(operands[0], kind), body.read(operands[2], kind)
    place, operation = _place(body, around, space, operands[1]), _ATOMICS[name]

    def update(at: Threads) -> None:
        memory, addresses, rows = place(at)
        values = np.broadcast_to(read(at), addresses.shape)
        write(at, memory.update(addresses, rows, operation, values, around.who(at)))

    return update


def _cvta(body: Body, parts: tuple[str, ...], operands: Any) -> Run:
    # Of the device's memory both addresses are the same, and a wrong one is found where it is used.
    if parts not in {("to", "global", "u64"), ("global", "u64"), ("param", "u64")}:
        raise PtxError("an unknown instruction")
    write, read = body.write(operands[0], "u64"), body.read(operands[1], "u64")
    window = np.uint64(WINDOWS["param"] if parts[0] == "param" else 0)
    return lambda at: write(at, read(at) + window)
