"""Causes that lie with generators: seeds, draws, and the states that traces have of them."""

from __future__ import annotations

from collections.abc import Sequence

from repro_audit.diagnose.case import Case
from repro_audit.diagnose.origin import MADE, Divergence, seeded_by
from repro_audit.model import Cause
from repro_audit.model.codes import DATA, KIND_BATCH, KIND_RNG, OWN_GENERATOR, RANDOM
from repro_audit.trace import Trace

_SEED_CALL = {
    "torch": "torch.manual_seed(0)",
    "python": "random.seed(0)",
    "numpy": "numpy.random.seed(0)",
}
# What nobody seeded begins with a number of 53 random bits.
_UNSEEDED = 1 << 32
_NONE = "no generator"
_NAMES = {"torch": "torch", "python": "Python", "numpy": "NumPy"}


def may_have_drifted(divergence: Divergence, cause: Cause, whole: Sequence[Trace]) -> bool:
    """True if a draw too many could be behind it: of a generator whose state shows it, or might.

    A draw after the last look at a generator and before the next shows in no state; what was drawn
    from at all is seen in traces that are `whole`. One that ends where replicas came apart has no
    state after that.
    """
    structural = divergence.origin.kind == "structural"
    if cause.cls == "rng-drift" and not structural:
        return True
    case = Case(divergence, None)
    batch = case.trace.kind[case.event] == KIND_BATCH
    fed = batch or case.trace.phase[case.event] == DATA or structural
    if not fed or cause.cls not in {"data-order", "rng-drift", "unknown"}:
        return False
    return not whole or any(
        _drew(trace, case.process, generator)
        for trace in whole
        for generator in ("python", "numpy")
    )


def one_draw_more() -> Cause:
    """A draw that one run makes and the other does not."""
    return Cause(
        "rng-drift",
        "likely",
        ("one run draws here and the other does not: what is drawn later shifts",),
        ("make every draw in every run, or draw from a generator of its own",),
    )


def seeding_call(case: Case) -> Cause | None:
    if not case.op.startswith("seed:"):
        return None
    call = case.op.removeprefix("seed:")
    if case.op in MADE:
        made = MADE[case.op]
        evidence = f"{made} starts from another state in each run: it was given no fixed seed"
        remedy = f"give it a fixed seed: {made[:-1]}0)"
    elif case.divergence.i is None or case.divergence.j is None:
        evidence = f"only one of the runs calls {call} here"
        remedy = "seed on every path, once, at the start of the program"
    else:
        evidence = f"{call} was given another seed in each run"
        remedy = "seed with a fixed number: not the time, a process's, or hash() of a string"
        if call == "torch.seed":
            remedy = "torch.seed() takes a seed of the system's: call torch.manual_seed(0)"
    return Cause("unseeded-rng", "likely", (evidence,), (remedy,))


def draw(case: Case) -> Cause | None:
    if not case.flags & RANDOM:
        return None
    if case.flags & OWN_GENERATOR and case.divergence.origin.kind == "structural":
        return None
    if case.flags & OWN_GENERATOR and _drew_alike(case):
        return Cause(
            "rng-drift",
            "likely",
            ("it draws from a torch.Generator of the program's own, which gave the same before",),
            ("look for a draw from that generator that happens in one run only, before this",),
        )
    if case.flags & OWN_GENERATOR:
        return Cause(
            "unseeded-rng",
            "likely",
            ("it draws from a torch.Generator of the program's own, in another state in each run",),
            ("give that generator a fixed seed: generator.manual_seed(0)",),
        )
    spec = case.divergence.origin.spec
    device = "cpu" if spec is None else spec.device
    return _generator(case, "torch", device)


def _drew_alike(case: Case) -> bool:
    """True if the same line drew before, in the same process: there is no difference before."""
    trace, event = case.trace, case.trace.event(case.event)
    site, line = trace.site[case.event], (event.call_site, event.called_from)
    return any(
        number == site
        and trace.owner(i).process == case.process
        and (trace.event(i).call_site, trace.event(i).called_from) == line
        for i, number in enumerate(trace.site[: case.event])
    )


def _generator(case: Case, generator: str, device: str = "cpu") -> Cause | None:
    """A draw from a global generator, a device's own, whose state had differed before.

    States are seen where steps end; within a step, where the zoom kept that of the draw.
    """
    divergence = case.divergence
    states = dict(divergence.states)
    place = generator if device == "cpu" else f"{generator}.{device}"
    kept = case.zoomed if generator == "torch" else None
    moved = kept is not None and kept.generators_identical is False
    if place not in states and not moved:
        return None
    trace, name = case.trace, _NAMES[generator]
    seeded = any(
        kind == KIND_RNG
        and place.startswith(seeded_by(trace.site_name(i)[1]) or _NONE)
        and trace.owner(i).process == case.process
        for i, kind in enumerate(trace.kind[: case.event])
    )
    a, b = divergence.a, divergence.b
    controlled = all(run.plan.get("mode", "as-is") != "as-is" for run in (a, b))
    if not seeded and not controlled:
        seeds = [run.manifest.get("torch", {}).get("initial_seed", _UNSEEDED) for run in (a, b)]
        if max(seeds) < _UNSEEDED and seeds[0] != seeds[1]:
            return Cause(
                "config-difference",
                "likely",
                (f"torch's generator had been seeded with {seeds[0]} before, and with {seeds[1]}",),
                ("begin both from one seed",),
            )
        return Cause(
            "unseeded-rng",
            "likely",
            (f"{name}'s global generator was not seeded before this draw",),
            (f"call {_SEED_CALL[generator]} first, or repro_audit.seed_everything(0)",),
        )
    when = f"at step {states[place]}" if place in states else "when it was drawn from here"
    return Cause(
        "rng-drift",
        "likely",
        (f"{name}'s generator had the same seed, but another state {when}",),
        ("look for a draw that happens in one run only, before that",),
    )


def drawn(case: Case) -> Cause | None:
    """A global generator of NumPy's or Python's that was drawn from, and not, or otherwise, seeded.

    It was where a run's own states of it changed around the event.
    """
    for generator in ("numpy", "python"):
        if _drew(case.trace, case.process, generator):
            cause = _generator(case, generator)
            if cause is not None:
                return cause
    return None


def _drew(trace: Trace, process: str, generator: str) -> bool:
    """True if a process drew from its global generator between two looks at its state."""
    seen = [
        trace.signature(i)
        for i, kind in enumerate(trace.kind)
        if kind == KIND_RNG
        and trace.site_name(i)[1] == f"rng:{generator}"
        and trace.owner(i).process == process
    ]
    return len(set(seen)) > 1
