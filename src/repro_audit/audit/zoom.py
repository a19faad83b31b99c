"""The zoom: further runs that keep one event's tensors, or open up an optimizer's step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from repro_audit.audit.narrow import narrow
from repro_audit.audit.session import Finished, Session
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed, look
from repro_audit.model import Origin, Sighting, SiteKey, Warn

# Pairs to try before giving up on an intermittent divergence.
_ATTEMPTS = 3
_PARAM_KIND = 1


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
    """Look closer at a divergence with two more runs, or a few more if it does not recur.

    At level `modules` the operators between the last module that agrees and the first that differs
    come first.
    A parameter that differs after an optimizer's step first gets runs that fingerprint what each
    operator inside the step writes. Then the origin's inputs are fingerprinted and its outputs
    kept. Structural divergences and seeding calls have no tensors to keep.
    """
    tally = _Tally(sightings)
    session.set_against(divergence.a, divergence.b)
    if session.request.level == "modules":
        divergence = narrow(session, divergence, tally.refined, tally.add)
    elif _is_parameter(divergence):
        divergence = _open_optimizer(session, divergence, tally)
    origin = divergence.origin
    if origin.kind == "structural" or origin.key.phase == "rng" or origin.spec is None:
        return Closer(divergence, origin, None, tally.sightings(), [])
    for attempt in range(1, _ATTEMPTS + 1):
        name = f"zoom-{attempt}"
        one, other = session.pair(
            name,
            "tensors",
            capture=(origin.key,),
            optimizer_ops=origin.key.phase == "optimizer",
        )
        found, _, _ = session.compare(one.trace, other.trace)
        if found is not None:
            tally.add(found.origin)
        seen = look(one.trace, other.trace, origin.key)
        if seen is None or not seen.differs or not (seen.inputs_identical or _same(found, origin)):
            continue
        origin = replace(
            origin,
            inputs_identical=seen.inputs_identical,
            output=seen.output,
            spec=seen.spec,
            ulp=seen.ulp,
            ulp_runs=(one.info.name, other.info.name),
        )
        return Closer(divergence, origin, seen, tally.sightings(origin), [], one)
    warning = Warn(
        "RA103",
        f"the divergence did not recur at its origin in {_ATTEMPTS} further pairs of runs: it is "
        "intermittent, and there are no ULP figures for it",
        origin.call_site,
    )
    return Closer(divergence, origin, None, tally.sightings(), [warning])


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


def _is_parameter(divergence: Divergence) -> bool:
    i = divergence.i
    return (
        i is not None and divergence.origin.kind == "value" and divergence.a.kind[i] == _PARAM_KIND
    )


def _open_optimizer(session: Session, divergence: Divergence, tally: _Tally) -> Divergence:
    """The op inside the optimizer's step that first differs, where further runs show it."""
    for attempt in range(1, _ATTEMPTS + 1):
        one, other = session.pair(f"optimizer-{attempt}", "optimizer", optimizer_ops=True)
        found, _, _ = session.compare(one.trace, other.trace)
        if found is None:
            continue
        key = found.origin.key
        if key == divergence.origin.key:
            # No operator inside the step differed before it: what changed it is no operator.
            return divergence
        # A moment that differs may show in the parameter of a later step.
        if key.step <= divergence.origin.key.step and not _is_parameter(found):
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
