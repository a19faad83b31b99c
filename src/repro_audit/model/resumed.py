"""How a run went on where another one was ended, beside a run that was never interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Restored:
    """One kind of state that a resumed run began with, beside the straight run's at that step.

    `what` is weights (parameters and buffers), data (what came in from outside in that step),
    generator, optimizer (what it keeps) or options (what it was told, such as the learning rate);
    `name` is the generator's, or the optimizer's class. Of `compared` items `differing` differ,
    the first of them in `names`. Where it is not `used`, a generator that the straight run did not
    draw from any more, a difference changes nothing.
    """

    what: Literal["weights", "data", "generator", "optimizer", "options"]
    name: str
    compared: int
    differing: int
    names: tuple[str, ...] = ()
    used: bool = True

    @property
    def restored(self) -> bool:
        """True unless a difference was seen that may change something."""
        return not (self.differing and self.used)


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a resumed run goes on, and with what.

    The first part was ended as it was about to make step `ended` (from 0). The resumed run read the
    files `read`, which the first part had written, and went on at `step`. Of steps, `straight` made
    so many in all, `resumed` so many from `step` on, and `compared` were compared. `more` events,
    none of which differs from anything, the resumed run has alone: what is made once is made anew.
    It was `limited` to fewer steps than it would have made.
    """

    step: int
    ended: int
    straight: int
    resumed: int
    compared: int
    read: tuple[str, ...]
    state: tuple[Restored, ...]
    more: int = 0
    limited: bool = False
