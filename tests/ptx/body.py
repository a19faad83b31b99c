"""A function's registers and its instructions, made to run on any of a launch's threads at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from .memory import Array, Memory
from .operations import OPERATIONS, TYPES, Operation, bits_of
from .parser import (
    Function,
    Immediate,
    Instruction,
    Not,
    Operand,
    PtxError,
    Register,
    Symbol,
    Vector,
)

# Which threads: a range of their numbers, or the numbers in order.
Threads = slice | Array
Read = Callable[[Threads], Array]
Write = Callable[[Threads, Array], None]
Run = Callable[[Threads], None]


class Cell:
    """A register of all threads."""

    __slots__ = ("count", "kind", "name", "unset", "values")

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = TYPES[kind if kind == "pred" else f"u{kind[1:]}"]
        self.reset(0)

    def reset(self, count: int) -> None:
        """Of so many threads, set in none."""
        self.count = count
        self.values: Array | None = None
        self.unset: Array | None = None

    def read(self, at: Threads) -> Array:
        """The values of some threads, all of which must have set them."""
        if self.values is None or (self.unset is not None and np.count_nonzero(self.unset[at])):
            raise PtxError(f"{self.name} is read before it is set")
        return self.values[at]

    def write(self, at: Threads, value: Array) -> None:
        """Sets the values of some threads."""
        if self.values is None:
            self.values = np.empty(self.count, self.kind)
            if not isinstance(at, slice) or at != slice(0, self.count):
                self.unset = np.ones(self.count, np.bool_)
        self.values[at] = value
        if self.unset is not None:
            self.unset[at] = False


class Surroundings(Protocol):
    """What a body asks of the launch that runs it."""

    def special(self, name: str, at: Threads) -> Array:
        """What a register such as %tid.x holds."""

    def address(self, name: str) -> int:
        """Where a variable is in its state space."""


class Body:
    """A function's operands; its registers and variables are of the call that is in progress."""

    def __init__(self, function: Function, around: Surroundings) -> None:
        self.function = function
        self.around = around
        self.cells = {name: Cell(name, kind) for name, kind in function.registers.items()}
        self.variables: dict[str, Memory] = {}

    def reset(self, threads: int) -> None:
        """For a call by so many threads."""
        for cell in self.cells.values():
            cell.reset(threads)
        self.variables.clear()
        for variable in self.function.variables.values():
            self.variables[variable.name] = Memory(variable.name, variable.size, threads)
            self.variables[variable.name].writable[:] = 0xFF

    def read(self, operand: Operand, kind: str, loose: bool = False) -> Read:
        """How an operand of a type is read; `loose` takes the low bits of wider registers."""
        dtype = TYPES[kind]
        if isinstance(operand, Not):
            of = self.read(operand.of, kind)
            return lambda at: ~of(at)
        if isinstance(operand, Immediate):
            if kind == "pred":
                constant = np.array([operand.bits != 0])
            else:
                bits = operand.bits & ((1 << bits_of(kind)) - 1)
                constant = np.array([bits], f"u{dtype.itemsize}").view(dtype)
            return lambda at: constant
        if isinstance(operand, Symbol):
            if kind not in {"u64", "b64", "u32", "b32"}:
                raise PtxError(f"the address of {operand.name} as {kind}")
            return lambda at: np.array([self.around.address(operand.name)], dtype)
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} is no operand of type {kind}")
        if operand.name not in self.cells:
            if kind not in {"u32", "b32"}:
                raise PtxError(f"{operand.name} as {kind}")
            return lambda at: self.around.special(operand.name, at)
        cell = self.cells[operand.name]
        if cell.kind == dtype:
            return cell.read
        if (cell.kind == np.bool_) != (kind == "pred"):
            raise PtxError(f"{operand.name} as {kind}")
        if cell.kind.itemsize == dtype.itemsize:
            return lambda at: cell.read(at).view(dtype)
        if not loose or cell.kind.itemsize < dtype.itemsize:
            raise PtxError(f"{operand.name} as {kind}")
        return lambda at: cell.read(at).astype(f"u{dtype.itemsize}").view(dtype)

    def write(self, operand: Operand, kind: str, loose: bool = False) -> Write:
        """How a result of a type is set; `loose` extends it to a wider register by its sign."""
        if operand == Symbol("_"):
            return lambda at, value: None
        if not isinstance(operand, Register) or operand.name not in self.cells:
            raise PtxError(f"{operand} is no register")
        cell, dtype = self.cells[operand.name], TYPES[kind]
        if cell.kind.itemsize < dtype.itemsize or (cell.kind == np.bool_) != (kind == "pred"):
            raise PtxError(f"{operand.name} as {kind}")
        if cell.kind.itemsize > dtype.itemsize and not loose:
            raise PtxError(f"{operand.name} as {kind}")
        if dtype.kind == "f":
            bits = f"u{dtype.itemsize}"
            return lambda at, value: cell.write(at, value.view(bits))
        return cell.write

    def plain(self, instruction: Instruction) -> Run:
        """What an instruction without memory, control or other threads does."""
        parts, operands = instruction.parts, instruction.operands
        if parts[0] == "mov":
            return self._mov(parts, operands)
        operation = OPERATIONS.get(instruction.opcode)
        if operation is None:
            raise PtxError("an unknown instruction")
        return self._operation(operation, operands)

    def _operation(self, operation: Operation, operands: tuple[Operand, ...]) -> Run:
        if len(operands) != 1 + len(operation.operands):
            raise PtxError("a wrong number of operands")
        write = self.write(operands[0], operation.result, operation.loose)
        reads = [
            self.read(operand, kind, operation.loose)
            for operand, kind in zip(operands[1:], operation.operands, strict=True)
        ]
        function = operation.function
        if len(reads) == 1:
            (only,) = reads
            return lambda at: write(at, function(only(at)))
        if len(reads) == 2:
            first, second = reads
            return lambda at: write(at, function(first(at), second(at)))
        return lambda at: write(at, function(*[read(at) for read in reads]))

    def _mov(self, parts: tuple[str, ...], operands: tuple[Operand, ...]) -> Run:
        if len(parts) != 2 or parts[1] not in TYPES or len(operands) != 2:
            raise PtxError("an unknown move")
        kind, (to, source) = parts[1], operands
        if not isinstance(to, Vector) and not isinstance(source, Vector):
            write, read = self.write(to, kind), self.read(source, kind)
            return lambda at: write(at, read(at))
        pieces = (to if isinstance(to, Vector) else source).parts
        bits = bits_of(kind) // len(pieces)
        part, whole, shift = f"b{bits}", TYPES[kind], TYPES[kind].type(bits)
        if isinstance(to, Vector):
            read = self.read(source, kind)
            writes = [self.write(piece, part) for piece in pieces]

            def unpack(at: Threads) -> None:
                value = read(at)
                for write in writes:
                    write(at, value.astype(TYPES[part]))
                    value = value >> shift

            return unpack
        write = self.write(to, kind)
        reads = [self.read(piece, part) for piece in reversed(pieces)]

        def pack(at: Threads) -> None:
            value = np.zeros(1, whole)
            for read in reads:
                value = value << shift | read(at).astype(whole)
            write(at, value)

        return pack
