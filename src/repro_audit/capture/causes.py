"""Which forward operator an autograd node belongs to: the cause of a backward operator.

Autograd numbers its nodes as it makes them, thread by thread, and makes an operator's node before
the operator reaches the dispatch mode. What was made since the last event therefore belongs to the
operator now dispatched, but for what the operator before it left behind.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch._C._autograd import _get_sequence_nr

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator

# Nodes that are remembered: those of so many steps, but never fewer or more than this. A graph may
# outlive its step, as hidden states carried over do.
_STEPS, _LEAST, _MOST = 8, 16_384, 400_000
# Event, module path, operator.
Bound = tuple[int, str, "Operator"]
# Made when an operator in place on a view has returned, after the operator's own node.
_COPY_SLICES = "CopySlices"
# Nodes are named for their formula (`NllLossBackward0`), or for the custom operator or Function.
_FORMULA = re.compile(r"(?:GeneratedBackwardFor)?(.*?)Backward\d*$")


class Causes:
    """The nodes that one thread made, each with the event of its forward operator.

    The node of a custom Function belongs to the first operator that its forward runs. `made` is the
    number of the thread's next node, `last` its last event.
    """

    __slots__ = ("_bound", "_ends", "last", "made")

    def __init__(self, made: int) -> None:
        self.made = made
        self.last: Bound | None = None
        # Two events where the node's name must tell: the one at whose dispatch it was new, and the
        # one before, which wrote in place.
        self._bound: dict[int, Bound | tuple[Bound, Bound]] = {}
        # Numbers at which steps ended.
        self._ends: deque[int] = deque(maxlen=_STEPS)

    def bind(self, bound: Bound) -> None:
        """Bind what was made since the last event, at the dispatch of the next one."""
        last = self.last
        made = _get_sequence_nr()
        self._bind(made, (bound, last) if last is not None and last[2].writes else bound)

    def running(self, number: int) -> None:
        """Note that a node runs in this thread: what now runs within it did not make it.

        One with a number that this thread has not come to yet is another thread's.
        """
        if number >= self.made and self.last is not None and number < _get_sequence_nr():
            self._bind(number + 1, self.last)

    def of(self, node: Any, number: int) -> Bound | None:
        """The event of the forward operator that made `node`, whose number is `number`."""
        bound = self._bound.get(number)
        if bound is None or len(bound) == 3:
            return bound
        now, before = bound
        return before if node.name().endswith(_COPY_SLICES) else now

    def forget(self) -> None:
        """Note that a step has ended; forget nodes that no recent graph can hold."""
        self._ends.append(self.made)
        if len(self._ends) == _STEPS:
            self._drop(min(self._ends[0], self.made - _LEAST))

    def _bind(self, made: int, bound: Bound | tuple[Bound, Bound]) -> None:
        for number in range(self.made, made):
            self._bound[number] = bound
        self.made = made
        if len(self._bound) > _MOST:
            self._drop(made - _MOST // 2)

    def _drop(self, before: int) -> None:
        """Forget the nodes made before this one; they stand in the order of their numbers."""
        for number in list(takewhile(lambda number: number < before, self._bound)):
            del self._bound[number]


@functools.lru_cache(maxsize=4096)
def fits(node: str, operator: str) -> bool:
    """Whether a node's name (`NllLossBackward0`) is that of an operator's formula.

    Two threads number their nodes alike; this tells most of them apart.
    """
    formula = _FORMULA.search(node.rpartition("::")[2])
    if formula is None:
        return False
    namespace, base, _ = operator.split(".", 2)
    plain = base.replace("_", "").lower()
    named = formula[1].replace("_", "").lower()
    return plain.startswith(named) or named.startswith(namespace.lower() + plain)
