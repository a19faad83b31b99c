"""When a step of one thread ends: once every optimizer that it uses has stepped."""

from __future__ import annotations

import weakref
from typing import Any

# Steps of one optimizer without another, before that counts as unused.
_PATIENCE = 10


class Pace:
    """The optimizers that a thread constructs or steps.

    A program with two optimizers (a GAN) makes one step when both have stepped, the one perhaps
    ten times. One that has not while another steps for the eleventh time, and that has waited
    twice as long as between its own last two steps, is left out until it steps again: it is never
    used, or its part of the training is over. So the first eleven steps of a part that has an
    optimizer of its own count as one. What other threads do with theirs has no part in it: when
    they do it is chance.
    """

    def __init__(self) -> None:
        self.constructed = False
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        # How often each has stepped since the last step ended.
        self._stepped: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        # Steps of all together: by the last of each, and between its last two.
        self._steps = 0
        self._last: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._between: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def add(self, optimizer: Any) -> None:
        """An optimizer was constructed."""
        self._optimizers.add(optimizer)
        self._last.setdefault(optimizer, self._steps)
        self.constructed = True

    def has(self, optimizer: Any) -> bool:
        """True if the thread constructed or stepped it, and uses it still."""
        return optimizer in self._optimizers

    def stepped(self, optimizer: Any) -> bool:
        """An optimizer has stepped: True if that ends the step."""
        self.add(optimizer)
        self._steps += 1
        self._between[optimizer] = self._steps - self._last[optimizer]
        self._last[optimizer] = self._steps
        times = self._stepped[optimizer] = self._stepped.get(optimizer, 0) + 1
        if times > _PATIENCE:
            for idle in [o for o in self._optimizers if self._is_idle(o)]:
                self._optimizers.discard(idle)
        return all(o in self._stepped for o in self._optimizers)

    def within(self, optimizer: Any) -> None:
        """An optimizer has stepped inside another's step, which ends none."""
        self.add(optimizer)
        self._stepped.setdefault(optimizer, 0)

    def restart(self) -> None:
        """A step has ended."""
        self._stepped.clear()

    def _is_idle(self, optimizer: Any) -> bool:
        """A critic may step more often than ten times before its generator does."""
        waited = self._steps - self._last[optimizer]
        return optimizer not in self._stepped and waited > 2 * self._between.get(optimizer, 0)
