"""What passes a recorder by, counted, so that reports can say so."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from repro_audit import engine
from repro_audit.capture.operators import Operator
from repro_audit.capture.replaced import Replaced

# By which the calling thread's allocations go to a graph's memory, and no longer.
_ROUTING = ("_cuda_beginAllocateCurrentThreadToPool", "_cuda_endAllocateToPool")


class Unseen:
    """Counts what is recorded without its values, or not at all, in this process."""

    def __init__(self, before_capture: Callable[[], None]) -> None:
        self._before_capture = before_capture
        self._replays = 0
        self._workers = 0
        self._elsewhere = 0
        self._loading: weakref.WeakSet[Any] = weakref.WeakSet()
        self._replaced = Replaced()

    def install(self) -> None:
        """Count replays of devices' graphs; have `before_capture` called before one is captured,
        and the engine know where what is allocated is a graph's.
        """

        def counted() -> None:
            self._replays += 1

        graphs = [
            getattr(getattr(torch, kind), f"{kind.upper()}Graph", None)
            for kind in engine.accelerator_kinds()
        ]
        for graph in (*graphs, getattr(torch.accelerator, "Graph", None)):
            if graph is not None:
                self._before(graph, "replay", counted)
                self._before(graph, "capture_begin", self._before_capture)
        for name in _ROUTING:
            change = 1 if "begin" in name else -1
            if hasattr(torch._C, name):
                self._before(torch._C, name, functools.partial(engine.routed, change))

    def _before(self, owner: Any, name: str, told: Callable[[], None]) -> None:
        """Have something told before a function is called."""

        def telling(original: Any) -> Any:
            def observed(*args: Any, **kwargs: Any) -> Any:
                told()
                return original(*args, **kwargs)

            return observed

        self._replaced.wrap(owner, name, telling)

    def uninstall(self) -> None:
        """Give the functions back."""
        self._replaced.give_back()

    def loading(self, iterator: Any) -> None:
        """A loader is given what its workers made."""
        if iterator not in self._loading:
            self._loading.add(iterator)
            self._workers += iterator._num_workers

    def elsewhere(self) -> None:
        """An operator ran in a thread of native code."""
        self._elsewhere += 1

    def forget(self, operators: Iterable[Operator]) -> None:
        """Begin anew, in a fork."""
        self._replays = self._workers = self._elsewhere = 0
        for operator in operators:
            operator.unread = 0

    def counts(self, operators: Iterable[Operator]) -> dict[str, int]:
        """How often, by what it was; nothing is said of what never was."""
        found = dict.fromkeys(("views", "empty"), 0)
        for operator in operators:
            found["empty" if operator.empty else "views"] += operator.unread
        found["compiled"] = _graphs_of_inductor()
        found["cuda-graphs"] = self._replays
        found["loader-workers"] = self._workers
        found["native-threads"] = self._elsewhere
        return {what: count for what, count in found.items() if count}


def _graphs_of_inductor() -> int:
    """Each is a module of code that it wrote; the other compilers' graphs are seen inside."""
    cache = sys.modules.get("torch._inductor.codecache")
    return len(cache.PyCodeCache.modules) if cache is not None else 0
