"""Which module is running: a stack per thread, named by the root module's own names."""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

if TYPE_CHECKING:
    from torch import Tensor, nn

_T = TypeVar("_T")


class ModuleNames:
    """Qualified names of modules and parameters, as `named_modules` of their root says.

    The first root's children have plain paths (`transformer.h.3`); a further root's start with its
    class name, so that two models of one program are told apart. A root without children is named
    by its class. A root that turns out to hold earlier ones (parts that were called while it was
    built, a model before it was wrapped) takes their place. Names are kept as long as the root
    lives.
    """

    def __init__(self, given: Iterable[tuple[str, str]] | None = None) -> None:
        # What roots of a shape are called, in order, as in another run; None: shapes do not matter.
        self._shaped = given is not None
        self._given: dict[str, list[str]] = {}
        for shape, prefix in given or ():
            self._given.setdefault(shape, []).append(prefix)
        self._first = not any("" in prefixes for prefixes in self._given.values())
        self._called: dict[str, str] = {}
        self._roots: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._modules: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._owners: dict[int, tuple[weakref.ref[Tensor], str, str]] = {}
        self._events: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._classes: dict[str, int] = {}
        self._graphs: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def enter_root(self, root: nn.Module) -> str:
        """Path of a module entered with nothing above it; names its tree on first sight."""
        prefix = self._roots.get(root)
        if prefix is not None:
            return prefix
        known = self._lookup(root)
        if known is not None:
            # A part of a tree that is already named, called by itself.
            return known
        parts = [module for module in root.modules() if module in self._roots]
        shape = _shape(root) if self._shaped else ""
        if self._given.get(shape):
            prefix = self._given[shape].pop(0)
        elif "" in [self._give_up(part) for part in parts]:
            prefix = ""
        elif self._first and next(root.children(), None) is not None:
            prefix = ""
            self._first = False
        else:
            prefix = self._distinct(type(root).__name__)
        self._roots[root] = prefix
        self._called[prefix] = shape
        self._name_tree(root, prefix)
        return prefix

    def path(self, module: nn.Module, parent: str) -> str:
        """Path of a module entered below `parent`."""
        known = self._lookup(module)
        if known is None and isinstance(module, GraphModule):
            # A graph that torch made of what its parent does.
            known = parent
            self._graphs.add(module)
            self._modules[id(module)] = (weakref.ref(module), known)
        if known is None:
            # Made after its root was named, or held outside the tree.
            name = type(module).__name__
            known = f"{parent}.{name}" if parent else name
            self._modules[id(module)] = (weakref.ref(module), known)
        return known

    def is_graph(self, module: nn.Module) -> bool:
        """Whether a module is a graph that torch made of what another one does."""
        return module in self._graphs

    def knows(self, module: nn.Module) -> bool:
        """Whether a module is part of a tree that was named, or was entered below one."""
        return self._lookup(module) is not None

    def roots(self) -> list[nn.Module]:
        """The roots that are still there, by name."""
        return sorted(self._roots, key=lambda root: self._roots[root])

    def called(self) -> list[tuple[str, str]]:
        """(shape of its tree, prefix) of each root that was named, for `given` of another run."""
        return [(shape, prefix) for prefix, shape in self._called.items()]

    def owner(self, tensor: Tensor) -> tuple[str, str] | None:
        """(module path, name) of a parameter or buffer of a named tree."""
        entry = self._owners.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return None
        return entry[1], entry[2]

    def recorded(self, tensor: Tensor, event: int) -> None:
        """Note the event that recorded a parameter or buffer."""
        self._events[id(tensor)] = (weakref.ref(tensor), event)

    def last_event(self, tensor: Tensor) -> int | None:
        """The event that recorded a parameter or buffer last, if one did."""
        entry = self._events.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def tensors(self, root: nn.Module) -> list[tuple[str, str, Tensor]]:
        """(module path, name, tensor) of a root's parameters and buffers, in a fixed order.

        Left out are those of lazy modules, which have no memory before their first forward.
        """
        found = []
        seen: set[int] = set()
        prefix = self.enter_root(root)
        for path, module in root.named_modules():
            full = _join(prefix, path)
            for name, tensor in (
                *module._parameters.items(),
                *module._buffers.items(),
            ):
                if tensor is not None and id(tensor) not in seen and not is_lazy(tensor):
                    seen.add(id(tensor))
                    found.append((full, name, tensor))
        return found

    def _lookup(self, module: nn.Module) -> str | None:
        entry = self._modules.get(id(module))
        # An id is reused once its owner is gone; the reference tells.
        return entry[1] if entry is not None and entry[0]() is module else None

    def _give_up(self, root: nn.Module) -> str:
        """Forget the names of a root's tree; returns its prefix."""
        for module in root.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                self._owners.pop(id(tensor), None)
        return self._roots.pop(root)

    def _name_tree(self, root: nn.Module, prefix: str) -> None:
        for path, module in root.named_modules():
            full = _join(prefix, path)
            self._modules[id(module)] = (weakref.ref(module), full)
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                # An entry whose tensor is gone is that of another, which had this id before.
                if tensor is not None and self.owner(tensor) is None:
                    self._owners[id(tensor)] = (weakref.ref(tensor), full, name)

    def _distinct(self, name: str) -> str:
        count = self._classes.get(name, 0)
        self._classes[name] = count + 1
        return name if count == 0 else f"{name}#{count}"


class FirstSeen(Generic[_T]):
    """What threads ran, while it is there: by the thread whose name comes first, as it came there.

    Which of several threads was first is chance.
    """

    def __init__(self) -> None:
        self._places: weakref.WeakKeyDictionary[_T, tuple[str, int]] = weakref.WeakKeyDictionary()
        self._counts: Counter[str] = Counter()

    def see(self, thing: _T, thread: str) -> None:
        """Note that a thread runs it."""
        known = self._places.get(thing)
        if known is None or thread < known[0]:
            self._counts[thread] += 1
            self._places[thing] = thread, self._counts[thread]

    def in_order(self) -> list[_T]:
        """All that is still there."""
        return sorted(self._places, key=lambda thing: self._places[thing])


def _shape(root: nn.Module) -> str:
    """Equal for roots of one class whose trees hold parameters of the same names and shapes."""
    told = [type(root).__qualname__]
    told += (f"{name} {type(module).__qualname__}" for name, module in root.named_modules())
    # Modes of the program are not to see it.
    with torch._C.DisableTorchFunction():
        told += (
            f"{name} {'' if is_lazy(parameter) else tuple(parameter.shape)}"
            for name, parameter in root.named_parameters()
        )
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path
