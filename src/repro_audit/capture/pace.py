"""When a step of one thread ends: once every optimizer that it uses has stepped."""

from __future__ import annotations

import weakref
from typing import Any

# Steps of one optimizer without another that was constructed, before that counts as unused.
_PATIENCE = 10


class Pace:
    """The optimizers that a thread constructs or steps.

    A program with two optimizers (a GAN) makes one step when both have stepped. One that is
    constructed but never used is left out once another has stepped ten times without it. What
    other threads do with theirs has no part in it: when they do it is chance.
    """

    def __init__(self) -> None:
        self.constructed = False
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._stepped: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ever: weakref.WeakSet[Any] = weakref.WeakSet()
        self._waiting = 0

    def add(self, optimizer: Any) -> None:
        """An optimizer was constructed."""
        self._optimizers.add(optimizer)
        self.constructed = True

    def stepped(self, optimizer: Any) -> bool:
        """An optimizer has stepped: True if that ends the step."""
        self.add(optimizer)
        # A critic may step several times before its generator first does.
        self._waiting += optimizer in self._stepped
        self._stepped.add(optimizer)
        self._ever.add(optimizer)
        if self._waiting >= _PATIENCE:
            for idle in [o for o in self._optimizers if o not in self._ever]:
                self._optimizers.discard(idle)
        return all(o in self._stepped for o in self._optimizers)

    def within(self, optimizer: Any) -> None:
        """An optimizer has stepped inside another's step, which ends none."""
        self.add(optimizer)
        self._stepped.add(optimizer)

    def restart(self) -> None:
        """A step has ended."""
        self._stepped.clear()
        self._waiting = 0
