"""Functions of other modules that ours stand in for while a run is recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol


class Hooks(Protocol):
    """What is put into torch and Python for a while."""

    def install(self) -> None:
        """Put it there."""

    def uninstall(self) -> None:
        """Take it away; also half of it."""


class Replaced:
    """What was replaced, to be given back in the opposite order."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Have an attribute of a module, a class or an object be `value`."""
        if name in vars(owner):
            # As it is held: what a class hands out may have lost what binds it to an instance.
            self._undo.append(functools.partial(setattr, owner, name, vars(owner)[name]))
        else:
            self._undo.append(functools.partial(delattr, owner, name))
        setattr(owner, name, value)

    def wrap(self, owner: Any, name: str, wrapping: Callable[[Any], Any]) -> None:
        """Have a function be what `wrapping` makes of it, by its name and signature."""
        original = getattr(owner, name)
        self.put(owner, name, functools.wraps(original)(wrapping(original)))

    def give_back(self) -> None:
        """Have all be what they were."""
        while self._undo:
            self._undo.pop()()
