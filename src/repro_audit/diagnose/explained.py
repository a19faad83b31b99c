"""The cause in the light of experiments: proven where one condition alone decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from repro_audit.model import Cause, CauseClass, Experiment, Explanation, Replay

_CONFIDENCE = 0.95
# The pins that try what remedies of likely causes begin with.
_ASKED = {"--deterministic": "deterministic", "one thread": "one-thread"}
_WRITTEN_UNSEEN = Cause(
    "unknown",
    "likely",
    ("memory from torch.empty is read that no op wrote, and filling it first changes nothing",),
    ("look at what else writes it: .numpy(), native code",),
)
_NO_SETTING = "another op: no setting that was tried cures this one"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What it proves that a condition decides: a class, and what a user does about it."""

    cls: CauseClass
    remedy: str


# What it proves that a thing makes a confirming run differ.
CHANGED: Mapping[str, Meaning] = {
    "hash-seed": Meaning(
        "data-order", "sort sets, take no number from hash() of a string, or set PYTHONHASHSEED=0"
    ),
    "memory": Meaning(
        "uninitialized-memory", "use torch.zeros, or write every element before the first read"
    ),
    "listings": Meaning("data-order", "sort what os.listdir, glob and Path.iterdir list"),
    "seeds": Meaning("unseeded-rng", "repro_audit.seed_everything(0) at the program's start"),
}


def explained(
    cause: Cause,
    explanation: Explanation,
    meanings: Mapping[str, Meaning],
    *,
    changed: bool,
    chosen: bool = False,
) -> Cause:
    """What `cause`, a likely one, becomes by the experiments.

    `meanings` has what each pin proves that makes the divergence vanish; with `changed` the
    experiments changed one thing each, and the one that made the runs differ is the cause.
    `chosen` says that the op's results are values that were there, of which it keeps some.
    """
    if changed:
        return _by_change(cause, explanation.experiments)
    replay = explanation.replay
    if replay is not None and replay.varies:
        return _by_itself(cause, replay, explanation.experiments, meanings, chosen=chosen)
    found = _by_pin(cause, explanation.experiments, meanings)
    found = replace(found, remedies=_left(found.remedies, explanation.experiments))
    if replay is not None and replay.problem is None:
        said = f"alone, on the same inputs, the op gave one result in {replay.calls} calls"
        found = replace(found, evidence=(*found.evidence, said))
    return found


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95% score interval of a share (E. B. Wilson, 1927): it stays within 0 and 1."""
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    share, weight = hits / of, z * z / of
    centre = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _by_itself(
    cause: Cause,
    replay: Replay,
    experiments: tuple[Experiment, ...],
    meanings: Mapping[str, Meaning],
    *,
    chosen: bool,
) -> Cause:
    low, high = interval(replay.differing_pairs, replay.pairs)
    evidence = [
        f"alone, on the same inputs, it gave {len(replay.counts)} results in {replay.calls} calls: "
        f"{replay.differing_pairs} of {replay.pairs} pairs differ "
        f"({low:.0%} to {high:.0%} of all, with 95% confidence)"
    ]
    evidence.extend(_sizes(replay, chosen=chosen))
    cures = [tried.pins[0] for tried in experiments if tried.differs is False]
    cls: CauseClass = meanings[cures[0]].cls if cures else "nondeterministic-op"
    if cause.cls == "nondeterministic-op" and cls == "nondeterministic-op":
        evidence = [*cause.evidence, *evidence]
    remedies = tuple(meanings[name].remedy for name in cures)
    if not remedies:
        remedies = (_NO_SETTING,)
    return Cause(cls, "proven", tuple(evidence), remedies, cause.source)


def _sizes(replay: Replay, *, chosen: bool) -> list[str]:
    """How far results lie from each other, and from the exact one: is that reasonable?

    Where one of several values is chosen there is no exact one.
    """
    if chosen or not replay.exact or replay.between is None:
        return []
    apart, away = replay.between.mean_ulp, max(figures.mean_ulp for figures in replay.exact)
    said = f"two results lie {apart:.2g} ULP apart on average, and {away:.2g} from float64's"
    return [said + (": it is rounding" if apart <= 2 * away else "")]


def _by_pin(
    cause: Cause, experiments: tuple[Experiment, ...], meanings: Mapping[str, Meaning]
) -> Cause:
    gone = [tried for tried in experiments if tried.differs is False]
    if not gone:
        still = any(tried.pins == ("filled-memory",) and tried.differs for tried in experiments)
        return _WRITTEN_UNSEEN if still and cause.cls == "uninitialized-memory" else cause
    # Where it takes several conditions, all of them were tried before the few that suffice.
    gone.sort(key=lambda tried: len(tried.pins))
    contrast = [t for t in experiments if t.pins == ("filled-memory",) and t.differs]
    tried = next((t for t in gone if meanings[t.pins[0]].cls == cause.cls), gone[0])
    if contrast and any(t.pins == contrast[0].pins for t in gone):
        tried = next(t for t in gone if t.pins == contrast[0].pins)
    evidence = [f"with {tried.said}, {tried.n} of {tried.n} runs agree"]
    if contrast and tried.pins == contrast[0].pins:
        evidence.append("filled with two patterns it gives two results")
    if len(tried.pins) > 1:
        return replace(cause, evidence=(*cause.evidence, *evidence))
    meaning = meanings[tried.pins[0]]
    if meaning.cls == cause.cls:
        return replace(cause, confidence="proven", evidence=(*cause.evidence, *evidence))
    return Cause(meaning.cls, "proven", tuple(evidence), (meaning.remedy,))


def _left(remedies: tuple[str, ...], experiments: tuple[Experiment, ...]) -> tuple[str, ...]:
    """Remedies without those that were tried and did not help."""
    failed = {tried.pins for tried in experiments if tried.differs}
    left = tuple(
        remedy
        for remedy in remedies
        if not any(remedy.startswith(word) and (pin,) in failed for word, pin in _ASKED.items())
    )
    return left or (_NO_SETTING,)


def _by_change(cause: Cause, experiments: tuple[Experiment, ...]) -> Cause:
    for tried in experiments:
        if not tried.differs:
            continue
        meaning = CHANGED[tried.pins[0]]
        evidence = f"{tried.said} alone makes it differ here"
        if meaning.cls == cause.cls:
            # What orders data is known now; which generator it is was known before.
            remedies = (meaning.remedy,) if cause.cls == "data-order" else cause.remedies
            proven = (*cause.evidence, evidence)
            return replace(cause, confidence="proven", evidence=proven, remedies=remedies)
        return Cause(meaning.cls, "proven", (evidence,), (meaning.remedy,))
    said = "nothing that a run as-is changes makes it differ by itself: it may be chance"
    return replace(cause, evidence=(*cause.evidence, said))
