"""What a pickle says, read as data: nothing of it is looked up, imported or called.

A pickle is a program for a machine with a stack. Here each of its instructions is followed, but
that a name of a class or function stays a name (`Named`), a call a note of what would be called
(`Made`), and what lies outside the pickle a note of where (`Outside`).
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from repro_audit.errors import CheckpointError

_DICTIONARIES = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("builtins", "dict"),
}
_SETS = {("builtins", "set"), ("builtins", "frozenset")}
_BYTES = {("builtins", "bytes"), ("builtins", "bytearray")}
_VALUES = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_EMPTY: dict[str, type] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PASSED_BY = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)


# Bytes that may be made of a pickle of no length, of an entry of a container, and the values that
# a key may consist of.
_ROOM, _ENTRY = 64 << 20, 64
_LARGEST_KEY = 100_000


@dataclass(frozen=True, slots=True)
class Named:
    """A class or function, by module and name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What `made_by`, called with `args`, would give, and the state and items it would be given."""

    made_by: object
    args: tuple[Any, ...]
    state: object = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


class Ordered(dict[Any, Any]):
    """A dictionary of the library's, and the attributes that it was given."""

    state: object = None


@dataclass(eq=False, slots=True)
class Outside:
    """What the pickle names, and its reader has to bring."""

    key: object


class Mark:
    """Where a group of operands begins."""


_MARK = Mark()


def read(pickle: bytes, what: str) -> Any:
    """The value that a pickle holds: dictionaries, lists, tuples, sets, numbers, strings, bytes,
    and the three kinds of notes above. Time: some 2 µs an instruction.

    Raises CheckpointError where it is none, is cut off, or uses what no checkpoint does.
    """
    try:
        with warnings.catch_warnings():
            # Of escapes that Python no longer knows, in strings of a damaged pickle.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _run(pickle)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{what} holds a pickle that cannot be read ({error}). It may be damaged: save it "
            "anew, or convert it to safetensors."
        ) from error


class _Room:
    """How much may be made of what a pickle holds once: else some bytes of one fill the memory."""

    def __init__(self, pickle: bytes) -> None:
        self._left = _ROOM + 8 * len(pickle)

    def take(self, much: int) -> None:
        """Use some of it up."""
        self._left -= much
        if self._left < 0:
            raise ValueError("it makes more of itself than it holds")


def _run(pickle: bytes) -> Any:
    stack: list[Any] = []
    room = _Room(pickle)
    memo: dict[Any, Any] = {}
    end = 0
    for instruction, argument, at in pickletools.genops(pickle):
        name, end = instruction.name, at or 0
        if name in _LITERALS:
            stack.append(argument)
        elif name in {"BINPUT", "LONG_BINPUT", "PUT"}:
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET", "GET"}:
            stack.append(memo[argument])
        elif name in _VALUES:
            stack.append(_VALUES[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name not in _PASSED_BY:
            _step(name, argument, stack, room)
    (value,) = stack
    if end + 1 != len(pickle):
        raise ValueError("more follows its end: several pickles in one file")
    return value


def _step(name: str, argument: Any, stack: list[Any], room: _Room) -> None:
    """An instruction that takes what lies on the stack."""
    if name == "MARK":
        stack.append(_MARK)
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        _group(stack)
    elif name == "DUP":
        stack.append(stack[-1])
    elif name in {"TUPLE", "LIST", "DICT", "FROZENSET"}:
        group = _group(stack)
        stack.append(_GROUPED[name](_hashable(group) if name == "FROZENSET" else group))
    elif name == "GLOBAL":
        module, _, attribute = argument.partition(" ")
        stack.append(_named(module, attribute))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_named(module, attribute))
    elif name in {"REDUCE", "NEWOBJ"}:
        args, made_by = stack.pop(), stack.pop()
        if not isinstance(args, tuple):
            raise ValueError("a call without arguments")
        stack.append(_made(made_by, args, room))
    elif name == "NEWOBJ_EX":
        keywords, args, made_by = stack.pop(), stack.pop(), stack.pop()
        stack.append(_made(made_by, (*args, *([keywords] if keywords else ())), room))
    elif name == "BUILD":
        state, into = stack.pop(), stack[-1]
        if not isinstance(into, Made | Ordered):
            raise ValueError(f"a state for a {type(into).__name__}")
        into.state = state
    elif name == "BINPERSID":
        stack.append(Outside(stack.pop()))
    else:
        _fill(name, stack)


def _fill(name: str, stack: list[Any]) -> None:
    """An instruction that puts operands into what lies below them."""
    if name == "APPEND":
        items = [stack.pop()]
    elif name == "SETITEM":
        items = [stack.pop(-2), stack.pop()]
    elif name in {"APPENDS", "SETITEMS", "ADDITEMS"}:
        items = _group(stack)
    else:
        raise ValueError(f"instruction {name}")
    into = stack[-1]
    if name.startswith("SETITEM"):
        entries = _pairs(items)
        (into.entries if isinstance(into, Made) else into).update(entries)
    elif isinstance(into, set):
        into.update(_hashable(items))
    else:
        (into.items if isinstance(into, Made) else into).extend(items)


def _group(stack: list[Any]) -> list[Any]:
    """Take everything off the stack down to the last mark, and the mark."""
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
    group = stack[at + 1 :]
    del stack[at:]
    return group


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(_hashable(items[::2]), items[1::2], strict=True))


def _hashable(items: list[Any]) -> list[Any]:
    """What becomes keys, and what a set holds: hashing goes through all that lies in a tuple."""
    for item in items:
        left, size = [item], 0
        while left:
            size += 1
            if size > _LARGEST_KEY:
                raise ValueError("a key that is no name")
            if isinstance(last := left.pop(), tuple):
                left += last
    return items


_GROUPED: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": _pairs,
    "FROZENSET": frozenset,
}


def _named(module: str, name: str) -> Named:
    # The names that protocol 2 has of Python 2.
    return Named("builtins" if module == "__builtin__" else module, name)


def _made(made_by: object, args: tuple[Any, ...], room: _Room) -> object:
    """Containers and bytes are what they are; any other call is noted."""
    if not isinstance(made_by, Named):
        return Made(made_by, args)
    name = made_by.module, made_by.name
    if name in _DICTIONARIES:
        # A default factory is nobody's content.
        entries = args[-1] if args and isinstance(args[-1], dict | list) else {}
        room.take(_ENTRY * len(entries))
        if isinstance(entries, list):
            entries = _pairs([side for pair in entries for side in pair])
        return Ordered(entries)
    if name in _SETS and all(isinstance(arg, list | tuple) for arg in args):
        items = list(args[0]) if args else []
        room.take(_ENTRY * len(items))
        return (set if name[1] == "set" else frozenset)(_hashable(items))
    if name in _BYTES and (not args or (len(args) == 1 and isinstance(args[0], bytes))):
        return args[0] if args else b""
    encoded = name in {("_codecs", "encode"), ("builtins", "bytearray")}
    if encoded and args[1:] in {("latin1",), ("latin-1",)}:
        room.take(len(args[0]))
        return args[0].encode("latin1")
    return Made(made_by, args)
