"""The text of PTX as functions of instructions.

Whatever is not known here is refused: a directive that is passed over could be one that changes
what the code means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

_TOKEN = re.compile(
    r"""0[df][0-9A-Fa-f]+|-?0[xX][0-9A-Fa-f]+U?|-?\d+\.\d+|-?\d+U?
    |\.?[A-Za-z_$%][\w$]*(?:(?:\.|::)\w+)*|"[^"]*"|[][{}(),;:@!|+<>=]""",
    re.VERBOSE,
)
_LINKAGE = {".visible", ".weak", ".extern"}
_HINTS = {".maxntid", ".reqntid", ".minnctapersm"}
_BRACKETS = {"{": "}", "(": ")"}
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8, "pred": 1}


class PtxError(Exception):
    """PTX that is wrong, does what is undefined, or is not known here."""


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Immediate:
    """A number's bits, of the width of where it is used; a float's when it is written as one."""

    bits: int


@dataclass(frozen=True)
class Symbol:
    """A variable, a label or a function."""

    name: str


@dataclass(frozen=True)
class Address:
    base: Register | Symbol
    offset: int


@dataclass(frozen=True)
class Vector:
    parts: tuple[Operand, ...]


@dataclass(frozen=True)
class Both:
    """`%r|%p`: two results."""

    first: Register
    second: Register


@dataclass(frozen=True)
class Not:
    """`!%p`."""

    of: Register


Operand = Register | Immediate | Symbol | Address | Vector | Both | Not


@dataclass(frozen=True)
class Variable:
    """Memory with a name: `size` bytes in a state space."""

    name: str
    space: str
    size: int
    align: int


@dataclass(frozen=True)
class Instruction:
    parts: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | Not | None
    line: int

    @property
    def opcode(self) -> str:
        """As it is written."""
        return ".".join(self.parts)

    def symbols(self) -> list[str]:
        """The variables that it names."""
        found = [o.base if isinstance(o, Address) else o for o in self.operands]
        return [o.name for o in found if isinstance(o, Symbol)]


@dataclass
class Function:
    name: str
    entry: bool
    results: list[Variable] = field(default_factory=list)
    parameters: list[Variable] = field(default_factory=list)
    threads: int | None = None  # the most of a block, where it says so
    registers: dict[str, str] = field(default_factory=dict)  # name to type
    variables: dict[str, Variable] = field(default_factory=dict)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def owns(self, name: str) -> bool:
        """Whether a variable is of each call, and not of a launch or the module."""
        passed = [] if self.entry else self.results + self.parameters
        return name in self.variables or any(name == variable.name for variable in passed)


@dataclass
class Module:
    target: str
    functions: dict[str, Function]
    shared: dict[str, Variable]


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.lines: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            code = line.partition("//")[0]
            found = _TOKEN.findall(code)
            if "".join(found) != "".join(code.split()):
                raise PtxError(f"line {number}: not understood: {code!r}")
            self.tokens += found
            self.lines += [number] * len(found)
        self.at = 0
        self.scopes: list[dict[str, str]] = []
        self.inner = 0
        self.known: dict[str, str] = {}
        self.shared: dict[str, Variable] = {}

    def fail(self, what: str) -> PtxError:
        line = self.lines[min(self.at, len(self.lines) - 1)]
        return PtxError(f"line {line}: {what}")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.fail(f"{token!r} is expected, not {self.peek()!r}")

    def number(self) -> int:
        return int(self.next().removesuffix("U"), 0)

    def module(self) -> Module:
        module = Module("", {}, self.shared)
        while self.peek():
            token = self.next()
            if token == ".version":
                self.next()
            elif token == ".target":
                module.target = self.next()
            elif token == ".address_size":
                if self.number() != 64:
                    raise self.fail("addresses of other than 64 bits")
            elif token in _LINKAGE:
                continue
            elif token in {".entry", ".func"}:
                function = self.function(token == ".entry")
                # A declaration comes before its definition, and says no more.
                if function.code or function.name not in module.functions:
                    module.functions[function.name] = function
            elif token == ".shared":
                self.share()
            elif token == ".global":
                # NVRTC writes out constants that no code reads: what would is an unknown name.
                self.variable(token)
                if self.accept("="):
                    self.next()
                self.expect(";")
            else:
                raise self.fail(f"{token!r} in a module")
        return module

    def variable(self, space: str) -> Variable:
        """What follows the name of a state space."""
        align, kind = 0, self.next()
        if kind == ".align":
            align, kind = self.number(), self.next()
        size = _SIZES.get(kind[2:])
        if size is None or kind[1] not in "busf":
            raise self.fail(f"{kind!r} is no type of a variable")
        if self.accept(".ptr"):
            # What is said of the memory that a parameter points to.
            self.expect(".align")
            self.number()
        name = self.next()
        count = 1
        if self.accept("["):
            count = self.number()
            self.expect("]")
        return Variable(name, space.lstrip("."), size * count, max(align, size))

    def share(self) -> None:
        variable = self.variable(".shared")
        self.expect(";")
        if variable.name in self.shared:
            raise self.fail(f"{variable.name} twice")
        self.shared[variable.name] = variable

    def parameters(self) -> list[Variable]:
        found = []
        self.expect("(")
        while not self.accept(")"):
            self.expect(".param")
            found.append(self.variable(".param"))
            self.accept(",")
        return found

    def function(self, entry: bool) -> Function:
        results = self.parameters() if self.peek() == "(" else []
        function = Function(self.next(), entry, results)
        if self.peek() == "(":
            function.parameters = self.parameters()
        while self.peek() in _HINTS:
            hint = self.next()
            sizes = [self.number()]
            while self.accept(","):
                sizes.append(self.number())
            if hint == ".maxntid":
                function.threads = sizes[0]
                if sizes[1:] not in ([], [1, 1]):
                    raise self.fail("blocks of more than one dimension")
        if self.accept(";"):
            return function
        self.expect("{")
        self.scopes = [{}]
        self.known = function.registers
        while self.scopes:
            self.statement(function)
        return function

    def statement(self, function: Function) -> None:
        first = self.peek()
        if first == "{":
            self.next()
            self.scopes.append({})
        elif first == "}":
            self.next()
            self.scopes.pop()
        elif first.startswith("."):
            self.declaration(function)
        elif self.tokens[self.at + 1] == ":":
            function.labels[self.next()] = len(function.code)
            self.expect(":")
        else:
            function.code.append(self.instruction())

    def declaration(self, function: Function) -> None:
        if self.accept(".reg"):
            self.registers(function)
        elif self.accept(".pragma"):
            if self.next() != '"nounroll"':
                raise self.fail("an unknown pragma")
            self.expect(";")
        elif self.accept(".param"):
            variable = self.variable(".param")
            self.expect(";")
            name = self.named(variable.name)
            function.variables[name] = replace(variable, name=name)
        elif self.accept(".shared"):
            self.share()
        else:
            raise self.fail(f"{self.peek()!r} in a function")

    def named(self, name: str) -> str:
        """A name for what this scope calls so: inner scopes use a name again and again."""
        if len(self.scopes) == 1:
            return name
        self.inner += 1
        self.scopes[-1][name] = f"{name}#{self.inner}"
        return self.scopes[-1][name]

    def resolved(self, name: str) -> str:
        if len(self.scopes) == 1:
            return name
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def registers(self, function: Function) -> None:
        kind = self.next().lstrip(".")
        while True:
            name = self.next()
            if self.accept("<"):
                for i in range(self.number()):
                    function.registers[f"{name}{i}"] = kind
                self.expect(">")
            else:
                function.registers[self.named(name)] = kind
            if not self.accept(","):
                break
        self.expect(";")

    def instruction(self) -> Instruction:
        line = self.lines[self.at]
        guard: Register | Not | None = None
        if self.accept("@"):
            negated = self.accept("!")
            guard = Register(self.resolved(self.next()))
            guard = Not(guard) if negated else guard
        parts = tuple(self.next().split("."))
        operands = []
        while not self.accept(";"):
            operands.append(self.operand())
            if self.peek() != ";":
                self.expect(",")
        return Instruction(parts, tuple(operands), guard, line)

    def operand(self) -> Operand:
        token = self.next()
        if token == "[":
            base = self.operand()
            if not isinstance(base, Register | Symbol):
                raise self.fail("an address without a name")
            offset = self.number() if self.accept("+") else 0
            self.expect("]")
            return Address(base, offset)
        if token in _BRACKETS:
            return Vector(self.operands(_BRACKETS[token]))
        if token == "!":
            return Not(Register(self.resolved(self.next())))
        if token[0] in "-0123456789":
            if token[:2] in {"0d", "0f"}:
                return Immediate(int(token[2:], 16))
            return Immediate(int(token.removesuffix("U"), 0))
        name = self.resolved(token)
        if name[0] != "%" and name not in self.known:
            return Symbol(name)
        if self.accept("|"):
            return Both(Register(name), Register(self.resolved(self.next())))
        return Register(name)

    def operands(self, end: str) -> tuple[Operand, ...]:
        found = []
        while not self.accept(end):
            found.append(self.operand())
            if self.peek() != end:
                self.expect(",")
        return tuple(found)


def parse(text: str) -> Module:
    """The functions of a module, and the shared memory that it declares."""
    return _Parser(text).module()
