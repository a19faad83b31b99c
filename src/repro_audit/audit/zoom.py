"""The zoom: further runs that keep one event's tensors, or open up an optimizer's step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from repro_audit.audit.attempts import ATTEMPTS, Attempts
from repro_audit.audit.narrow import narrow
from repro_audit.audit.session import Finished, Session, came_apart
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed, look
from repro_audit.model import Origin, Sighting, SiteKey, Warn
from repro_audit.model.codes import HELD, TAINTED


@dataclass(frozen=True, slots=True)
class Closer:
    """What the zoom left of a divergence: the refined origin, and where pairs first diverged.

    `captured` is a run that kept the origin's call.
    """

    divergence: Divergence
    origin: Origin
    zoomed: Zoomed | None
    sightings: tuple[Sighting, ...]
    warnings: list[Warn]
    captured: Finished | None = None


def zoom(session: Session, divergence: Divergence, sightings: tuple[Sighting, ...]) -> Closer:
    """Look closer at a divergence with two more runs in lock-step, or more if it does not recur.

    At level `modules` the operators between the last module that agrees and the first that differs
    come first.
    A parameter or a state that differs after an optimizer's step first gets runs that fingerprint
    what each operator inside the step writes. Then the origin's inputs are fingerprinted and its
    outputs kept; in lock-step those of any op that differs first. Runs in lock-step that came apart
    have kept theirs already. Structural divergences and seeding calls have no tensors to keep.
    """
    tally = _Tally(sightings)
    session.set_against(divergence.a, divergence.b)
    if session.request.level == "modules":
        divergence = narrow(session, divergence, tally.refined, tally.add)
    elif _is_held(divergence):
        divergence = _open_optimizer(session, divergence, tally)
    origin = divergence.origin
    if origin.kind == "structural" or origin.key.phase == "rng" or origin.spec is None:
        return Closer(divergence, origin, None, tally.sightings(), [])
    if came_apart(divergence.a) and came_apart(divergence.b):
        closer = _closer(session, divergence, divergence, tally, [])
        if closer is not None:
            return closer
    attempts = Attempts(
        session,
        divergence,
        "zoom",
        "tensors",
        capture=(origin.key,),
        optimizer_ops=origin.key.phase == "optimizer",
    )
    elsewhere: Divergence | None = None
    for attempt in attempts:
        if elsewhere is not None and not attempt.lockstep:
            break
        found = attempt.found
        if found is not None:
            tally.add(found.origin)
        warnings = [] if attempt.lockstep else _vanished(attempts, divergence)
        pair = attempt.one.trace, attempt.other.trace
        seen = look(*pair, origin.key)
        if seen is not None and seen.differs and (seen.inputs_identical or _same(found, origin)):
            there = replace(divergence, a=pair[0], b=pair[1])
            return _told(session, there, divergence, seen, tally, warnings)
        if found is None or not came_apart(found.a):
            continue
        # Caught in the act at another site: of the same kind, it is as good as the one sought.
        if (found.origin.key.phase, found.origin.key.op) == (origin.key.phase, origin.key.op):
            closer = _closer(session, found, divergence, tally, warnings)
            if closer is not None:
                return closer
        elsewhere = elsewhere or found
    if elsewhere is not None:
        closer = _closer(session, elsewhere, divergence, tally, [])
        if closer is not None:
            return closer
    warning = Warn(
        "RA103",
        f"the divergence did not recur at its origin in {attempts.made} further pairs of runs: it "
        "is intermittent, and there are no ULP figures for it",
        origin.called_from or origin.call_site,
    )
    return Closer(divergence, origin, None, tally.sightings(), [warning])


def _closer(
    session: Session,
    caught: Divergence,
    first: Divergence,
    tally: _Tally,
    warnings: list[Warn],
) -> Closer | None:
    """What a pair that came apart in lock-step kept of its divergence; None if that is nothing."""
    seen = look(caught.a, caught.b, caught.origin.key)
    if caught.origin.kind == "structural" or seen is None or not seen.differs:
        return None
    return _told(session, caught, first, seen, tally, warnings)


def _told(
    session: Session,
    there: Divergence,
    first: Divergence,
    seen: Zoomed,
    tally: _Tally,
    warnings: list[Warn],
) -> Closer:
    """The divergence as two runs, which kept its tensors, show it."""
    origin = seen.told_of(there.origin, (there.a.run, there.b.run))
    divergence = first
    if there.origin.key != first.origin.key:
        divergence = replace(there, counts=first.counts)
    captured = session.run_of(there.a)
    return Closer(divergence, origin, seen, tally.sightings(origin), warnings, captured)


def _vanished(attempts: Attempts, divergence: Divergence) -> list[Warn]:
    """What to say of a divergence that runs one after the other show and pairs in lock-step do not.

    What is in memory that nobody wrote may also have another reason to come out the same.
    """
    if attempts.agreed < ATTEMPTS or divergence.i is None:
        return []
    speaks = "which speaks for a race"
    if divergence.a.flags[divergence.i] & TAINTED:
        speaks = "where memory that nobody wrote holds something else"
    elif divergence.a.stale_reads != divergence.b.stale_reads:
        speaks = "where both read the files that earlier runs left"
    said = f"the divergence vanished in lock-step, in {attempts.agreed} of {attempts.agreed} pairs"
    origin = divergence.origin
    return [Warn("RA103", f"{said}, {speaks}", origin.called_from or origin.call_site)]


def _same(found: Divergence | None, origin: Origin) -> bool:
    """True if a pair first diverged at the origin's site: figures of what follows mean little."""
    if found is None:
        return False
    mine, other = found.origin.key, origin.key
    return (mine.step, mine.phase, mine.module, mine.op) == (
        other.step,
        other.phase,
        other.module,
        other.op,
    )


def _is_held(divergence: Divergence) -> bool:
    i = divergence.i
    return i is not None and divergence.origin.kind == "value" and divergence.a.kind[i] in HELD


def _open_optimizer(session: Session, divergence: Divergence, tally: _Tally) -> Divergence:
    """The op inside the optimizer's step that first differs, where further runs show it."""
    for attempt in Attempts(session, divergence, "optimizer", "optimizer", optimizer_ops=True):
        found = attempt.found
        if found is None:
            continue
        key = found.origin.key
        if key == divergence.origin.key:
            # No operator inside the step differed before it: what changed it is no operator.
            return divergence
        # A moment that differs may show in the parameter of a later step.
        if key.step <= divergence.origin.key.step and not _is_held(found):
            refined = replace(found, counts=divergence.counts)
            tally.refined(divergence, found.origin)
            return refined
        tally.add(found.origin)
    return divergence


class _Tally:
    """Where pairs of runs first diverged, and how many."""

    def __init__(self, sightings: tuple[Sighting, ...]) -> None:
        self._origins: dict[SiteKey, Origin] = {s.origin.key: s.origin for s in sightings}
        self._pairs: Counter[SiteKey] = Counter({s.origin.key: s.pairs for s in sightings})

    def add(self, origin: Origin) -> None:
        """One more pair, first diverging at `origin`."""
        self._origins.setdefault(origin.key, origin)
        self._pairs[origin.key] += 1

    def refined(self, divergence: Divergence, origin: Origin) -> None:
        """What was seen there was the effect of `origin`, which a pair has now shown."""
        key = divergence.origin.key
        pairs = self._pairs.pop(key, 0)
        self._origins.pop(key, None)
        self._origins[origin.key] = origin
        self._pairs[origin.key] += pairs + 1

    def sightings(self, origin: Origin | None = None) -> tuple[Sighting, ...]:
        """All of them, the most frequent first; `origin` replaces its earlier, less exact self."""
        if origin is not None and origin.key in self._origins:
            self._origins[origin.key] = origin
        ordered = sorted(
            self._origins, key=lambda key: (-self._pairs[key], self._origins[key].event)
        )
        return tuple(Sighting(self._origins[key], self._pairs[key]) for key in ordered)
