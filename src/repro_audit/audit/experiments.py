"""Experiments on the program: runs under conditions of which one is held, or changed."""

from __future__ import annotations

import itertools
import math
from typing import Any

from repro_audit.audit.session import CONFIRMING, Finished, Session
from repro_audit.control.pins import BY_NAME, POISON, pinned
from repro_audit.errors import InterruptedRunError, ReproAuditError
from repro_audit.model import Experiment, SiteKey
from repro_audit.trace import Trace

# Chance at most that runs agree though what was held does nothing.
_ERROR = 0.05
_MOST_RUNS = 8
# Runs with nothing held, which tell how often runs differ; and at most of what seems to cure.
_PLAIN_RUNS = 4
_MOST_OF_A_CURE = 16
# What a confirming run changes all at once, one by one, with what that run is given.
_CHANGED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("hash-seed", "another hash seed", ("hash_seed",)),
    ("memory", "empty memory filled with a pattern", ("poison",)),
    ("listings", "directory listings reversed", ("reversed_listings",)),
    ("seeds", "no generator seeded", ("mode",)),
)
# The same in a run under the audit's own controls.
_CONTROLLED = {"mode": "controlled", "hash_seed": 0, "poison": None, "reversed_listings": False}


def but_for(name: str) -> dict[str, Any]:
    """What a confirming run changes, but for one thing."""
    fields = next(fields for known, _, fields in _CHANGED if known == name)
    return {**CONFIRMING, **{field: _CONTROLLED[field] for field in fields}}


class Laboratory:
    """Runs the program, as far as a divergence, under changed conditions.

    `rate` is how often two runs differ there if nothing is changed, as far as is known: the rarer,
    the more runs have to agree before that says anything.
    """

    def __init__(self, session: Session, key: SiteKey, rate: float) -> None:
        self._session = session
        self._key = key
        self._rate = rate
        self._runs = max(2, min(_MOST_RUNS, _needed(rate, _ERROR)))
        # Of runs with nothing held, once something seems to cure: pairs, and how many differ.
        self._plain: tuple[int, int] | None = None
        # True once runs agreed so often without, that no number of runs here can tell.
        self.undecided = False
        self._count = 0

    def held(self, pins: tuple[str, ...], *, among: int = 1) -> Experiment:
        """Runs with pins held: is the divergence still there?

        Where it is not, the program is run with nothing held too, and then as often with the pins
        as chance needs that there be, of `among` conditions, one in 20 times one that seems to
        cure: an estimate by a few pairs alone is too high as often as not.
        """
        said = " and ".join(BY_NAME[name].said for name in pins)
        runs: list[Finished] = []
        needed = self._runs
        try:
            while len(runs) < needed:
                runs.append(self._run(**pinned(pins)))
                if len(runs) > 1 and self._differ(runs[0].trace, runs[-1].trace):
                    return Experiment(pins, said, "program", len(runs), True)
                if len(runs) == self._runs:
                    needed = max(needed, _needed(self._lower_rate(), _ERROR / among))
                    if needed > _MOST_OF_A_CURE:
                        self.undecided = True
                        return Experiment(pins, said, "program", len(runs), None, self._chance())
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            return Experiment(pins, said, "program", len(runs), None, error.in_a_line)
        return Experiment(pins, said, "program", len(runs), False)

    def _chance(self) -> str:
        pairs, differing = self._plain or (0, 0)
        return f"may be chance: without it {pairs - differing} of {pairs} pairs agree too"

    def _lower_rate(self) -> float:
        """How often two runs with nothing held differ: as seen before, or here if that is less."""
        if self._plain is None:
            plain = [self._run().trace for _ in range(_PLAIN_RUNS)]
            differ = [self._differ(*pair) for pair in itertools.combinations(plain, 2)]
            self._plain = len(differ), sum(differ)
        pairs, differing = self._plain
        return min(self._rate, (differing + 0.5) / (pairs + 1))

    def filled(self) -> Experiment:
        """Two runs that differ in what fills the memory of `empty*` alone."""
        said = "empty memory filled with one pattern, and with another"
        return self._contrast(("filled-memory",), said, {"poison": POISON}, {"poison": 0})

    def changed(self, reference: Finished) -> list[Experiment]:
        """One run for each thing that a confirming run changes, up to the first that differs."""
        found = []
        for name, said, fields in _CHANGED:
            change = {**_CONTROLLED, **{field: CONFIRMING[field] for field in fields}}
            try:
                differs = self._differ(reference.trace, self._run(**change).trace)
                found.append(Experiment((name,), said, "program", 1, differs))
            except InterruptedRunError:
                raise
            except ReproAuditError as error:
                found.append(Experiment((name,), said, "program", 1, None, error.in_a_line))
            if found[-1].differs:
                break
        return found

    def reference(self) -> Finished:
        """One run under the audit's own controls, that looks at what changed runs look at."""
        return self._run()

    def _contrast(
        self, pins: tuple[str, ...], said: str, one: dict[str, Any], other: dict[str, Any]
    ) -> Experiment:
        try:
            differs = self._differ(self._run(**one).trace, self._run(**other).trace)
        except InterruptedRunError:
            raise
        except ReproAuditError as error:
            return Experiment(pins, said, "program", 2, None, error.in_a_line)
        return Experiment(pins, said, "program", 2, differs)

    def _run(self, **changes: Any) -> Finished:
        self._count += 1
        # Of one length each: an environment's size moves a program's addresses.
        name, key, limit = f"try-{self._count:03}", self._key, self._session.request.steps
        steps = key.step + 1 if limit is None else min(limit, key.step + 1)
        inside = key.phase == "optimizer"
        how = {"steps": steps, "optimizer_ops": inside, **changes}
        return self._session.attended(name, "experiments", **how)

    def _differ(self, one: Trace, other: Trace) -> bool:
        """True if two runs differ at the divergence's site, or before it."""
        found, _, _ = self._session.compare(one, other)
        if found is None:
            return False
        mine, key = found.origin.key, self._key
        if (mine.phase, mine.module, mine.op) == (key.phase, key.module, key.op):
            return True
        at = one.find(key)
        return at is None or found.i is None or found.i <= at


def _needed(rate: float, error: float) -> int:
    """How many runs agree by chance at most that often, where pairs differ at this rate."""
    return 1 + math.ceil(math.log(error) / math.log(1 - rate))
