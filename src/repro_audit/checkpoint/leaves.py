"""From what a pickle says to the tensors and values in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from repro_audit.checkpoint.contents import Held, Value, hash_of, name_of, told, value_of, words_of
from repro_audit.checkpoint.memory import Span
from repro_audit.checkpoint.pickled import Made, Named, Ordered, Outside
from repro_audit.checkpoint.tensors import array_of, dtype_of_storage, rebuilt
from repro_audit.engine import View, fingerprint
from repro_audit.errors import CheckpointError

_UTILS = "torch._utils"
# What a module keeps its state in, in the order of its state dict.
_MODULE = ("_parameters", "_buffers", "_modules")
# Kinds of tensors that only say how torch treats them.
_PLAIN = {
    ("torch.nn.parameter", "Parameter"),
    ("torch.nn.parameter", "Buffer"),
    ("torch", "Tensor"),
}
# A list of numbers of more is told by its hash.
_NUMBERS = 32
# What holds itself a few times over, nested, has no end.
_MOST = 5_000_000


class Leaves:
    """Finds the tensors and values in what a pickle says, by their dotted paths.

    `stored` brings the memory of a storage by its key. Nothing is left out: what has no name of its
    own, or one that is taken, is numbered.
    """

    def __init__(self, stored: Callable[[str], Span]) -> None:
        self.tensors: dict[str, Held] = {}
        self.values: dict[str, Value] = {}
        self._stored = stored
        self._within: set[int] = set()
        self._met = 0
        # Whether what is met belongs to a module, and not to its state dict.
        self._beside = False
        self._places: set[object] = set()
        self._again: Counter[str] = Counter()

    def take(self, x: Any, path: str = "") -> None:
        """Find what is in `x`, at `path`; raises CheckpointError where that has no end."""
        self._met += 1
        if self._met > _MOST:
            raise CheckpointError(
                f"it holds more than {_MOST:,} values. Save what matters of it by itself."
            )
        if id(x) in self._within:
            self._tell(path, told("what it is in"))
            return
        view = self._tensor(x)
        if view is not None:
            self._hold(path, view)
        elif isinstance(x, Outside):
            span, _ = self._storage(x)
            self._hold(path, span.view("uint8", (span.nbytes,)))
        elif isinstance(x, set | frozenset):
            words = words_of(x)
            if len(x) > _NUMBERS:
                words = f"{len(x):,} in a set, {hash_of(words.encode())}"
            self._tell(path, told(words))
        elif isinstance(x, list | tuple) and len(x) > _NUMBERS and _numbers(x):
            self._tell(path, told(f"{len(x):,} numbers, {hash_of(repr(list(x)).encode())}"))
        elif isinstance(x, Mapping | list | tuple | Made):
            self._within.add(id(x))
            for name, item in self._items(x, path):
                self.take(item, f"{path}.{name}" if path and name else path or name)
            self._within.discard(id(x))
        else:
            self._tell(path, value_of(x))

    def _hold(self, path: str, view: View) -> None:
        held = Held.of(view)
        if not self._beside:
            self.tensors[self._free(path, self.tensors)] = held
            self._places.add(held.place)
        elif held.place is None or held.place not in self._places:
            f = fingerprint(view)
            self._tell(path, told(f"{f.dtype}{list(f.shape)} {f.digest}"))

    def _tell(self, path: str, value: Value) -> None:
        self.values[self._free(path, self.values)] = value

    def _free(self, path: str, taken: Mapping[str, object]) -> str:
        """`path`, or where that is taken, with a number that is not."""
        if path not in taken:
            return path
        while True:
            self._again[path] += 1
            if (numbered := f"{path}#{self._again[path] + 1}") not in taken:
                return numbered

    def _items(self, x: Any, path: str) -> Iterator[tuple[str, Any]]:
        """What is directly in `x`; under no name what takes the place of `x` itself."""
        if isinstance(x, Mapping):
            yield from self._entries(x, path)
            # The versions that a state dict notes are nobody's content.
            if isinstance(x, Ordered) and isinstance(x.state, Mapping):
                yield from _named({k: v for k, v in x.state.items() if k != "_metadata"})
        elif isinstance(x, list | tuple):
            if not x:
                self._tell(path, told("[]"))
            yield from _numbered(x)
        elif _is(x, _UTILS, "_rebuild_parameter", "_rebuild_parameter_with_state"):
            yield "", x.args[0]
            yield from _named(x.args[3] if len(x.args) > 3 else {})
        elif _is(x, "torch._tensor", "_rebuild_from_type_v2"):
            made_by, kind, args, state = x.args
            if (kind.module, kind.name) not in _PLAIN:
                self._tell(f"{path}.(type)", value_of(kind))
            yield "", Made(made_by, tuple(args))
            yield from _named(state)
        elif _is(x, "torch", "Size") and len(x.args) == 1:
            yield "", x.args[0]
        elif isinstance(x.state, Mapping) and all(name in x.state for name in _MODULE):
            yield from self._module(x, path)
        else:
            # An object of any class: which, and all that it was made of.
            self._tell(
                path, value_of(x.made_by) if isinstance(x.made_by, Named) else told("object")
            )
            if not isinstance(x.made_by, Named):
                yield "(made by)", x.made_by
            yield from _numbered(x.args)
            yield from _named(x.state)
            yield from _numbered(x.items)
            yield from _named(x.entries)

    def _entries(self, x: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
        if not x:
            self._tell(path, told("{}"))
        yield from _named(x)

    def _module(self, x: Made, path: str) -> Iterator[tuple[str, Any]]:
        """A module that was saved whole: what its state dict has, by its names there; all else
        that it keeps is told beside, as values.
        """
        state: Mapping[str, Any] = x.state  # type: ignore[assignment]
        passing = state.get("_non_persistent_buffers_set") or ()
        beside: list[tuple[str, Any]] = [("(type)", item) for item in (x.made_by, *x.args) if item]
        for kind in _MODULE:
            for name, item in state[kind].items():
                if kind == "_buffers" and name in passing:
                    beside.append((name_of(name), item))
                elif item is not None:
                    yield name_of(name), item
        beside += [(name, item) for name, item in _named(state) if name not in _MODULE]
        was, self._beside = self._beside, True
        for name, item in beside:
            # What a module may have, and has not, is no news.
            if not (isinstance(item, Mapping | list | tuple | set) and not item):
                self.take(item, f"{path}.{name}" if path else name)
        self._beside = was

    def _tensor(self, x: Any) -> View | None:
        """The tensor or array that `x` says; None where it says none."""
        if not isinstance(x, Made) or not isinstance(x.made_by, Named):
            return None
        if _is(x, _UTILS, "_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3"):
            return rebuilt(x.made_by.name, x.args, *self._storage(x.args[0]))
        return array_of(x.made_by, x.args, x.state)

    def _storage(self, x: Any) -> tuple[Span, str]:
        if not isinstance(x, Outside) or not isinstance(x.key, tuple) or len(x.key) < 3:
            raise CheckpointError("a tensor without a storage. Save it anew.")
        _, kind, key = x.key[:3]
        return self._stored(str(key)), dtype_of_storage(kind)


def _is(x: Any, module: str, *names: str) -> bool:
    made_by = x.made_by
    return isinstance(made_by, Named) and made_by.module == module and made_by.name in names


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    yield from ((str(i), item) for i, item in enumerate(items))


def _named(state: Any) -> Iterator[tuple[str, Any]]:
    """What an object keeps, by name."""
    if isinstance(state, Mapping):
        # An empty name would be that of what it is in.
        yield from ((name_of(key) or "''", item) for key, item in state.items())
    elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Mapping):
        # With slots: a dictionary, or none, and what is in them.
        yield from _named(state[0] or {})
        yield from _named(state[1])
    elif state is not None:
        yield "(state)", state


def _numbers(items: list[Any] | tuple[Any, ...]) -> bool:
    return all(type(item) in {int, float, bool} for item in items)
