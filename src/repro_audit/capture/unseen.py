"""What passes a recorder by, counted, so that reports can say so."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch

from repro_audit.capture.operators import Operator


class Unseen:
    """Counts what is recorded without its values, or not at all, in this process."""

    def __init__(self) -> None:
        self._replays = 0
        self._workers = 0
        self._loading: weakref.WeakSet[Any] = weakref.WeakSet()
        self._replay: Any = None

    def install(self) -> None:
        """Count replays of CUDA graphs."""
        graph: Any = torch.cuda.CUDAGraph
        self._replay = replay = graph.replay

        @functools.wraps(replay)
        def counted_replay(*args: Any, **kwargs: Any) -> Any:
            self._replays += 1
            return replay(*args, **kwargs)

        graph.replay = counted_replay

    def uninstall(self) -> None:
        """Give the method back."""
        torch.cuda.CUDAGraph.replay = self._replay  # type: ignore[method-assign]

    def loading(self, iterator: Any) -> None:
        """A loader is given what its workers made."""
        if iterator not in self._loading:
            self._loading.add(iterator)
            self._workers += iterator._num_workers

    def forget(self, operators: Iterable[Operator]) -> None:
        """Begin anew, in a fork."""
        self._replays = self._workers = 0
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
        return {what: count for what, count in found.items() if count}


def _graphs_of_inductor() -> int:
    """Each is a module of code that it wrote; the other compilers' graphs are seen inside."""
    cache = sys.modules.get("torch._inductor.codecache")
    return len(cache.PyCodeCache.modules) if cache is not None else 0
