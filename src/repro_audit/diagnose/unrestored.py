"""Why a resumed run does not go on as the straight one did: what it began with, or what else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_audit.diagnose.align import column
from repro_audit.diagnose.case import Case
from repro_audit.diagnose.causes import classify
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed, telling
from repro_audit.model import Cause, Restored, Resumption
from repro_audit.model.codes import DATA, KIND_BATCH, KIND_PARAM, OWN_GENERATOR, RANDOM
from repro_audit.trace import Trace

_SHOWN = 3
_GENERATORS = {"torch": "torch", "python": "Python", "numpy": "NumPy"}
_SET_STATE = {
    "torch": ("torch.get_rng_state()", "torch.set_rng_state()"),
    "python": ("random.getstate()", "random.setstate()"),
    "numpy": ("numpy.random.get_state()", "numpy.random.set_state()"),
}
_SCHEDULE = "save scheduler.state_dict(), and load it after the optimizer's"
_OWN = "restore what the program keeps itself: GradScaler, averages, counters, caches"
_REMEDIES = {
    "weights": "save and load all of model.state_dict(), and buffers that are not persistent",
    "data": "skip the batches that are done, give sampler.set_epoch() the epoch, and restore "
    "generators of the program's own; or save a StatefulDataLoader's state_dict()",
    "optimizer": "save optimizer.state_dict(), and load it",
    "options": _SCHEDULE,
}
# What may follow from what: data are drawn.
_ORDER = ("weights", "generator", "data", "optimizer", "options")


def unrestored(
    divergence: Divergence,
    zoomed: Zoomed | None,
    resumption: Resumption,
    made: str | None,
    more: Sequence[int],
) -> Cause:
    """The likeliest cause of a divergence of a resumed run.

    What was not restored, where it explains the origin; else what explains a divergence of any two
    runs; else that it is something that was not recorded. `made` says what made the value that the
    straight run has there; `more` are events that the resumed run alone has.
    """
    wrong = [item for item in resumption.state if not item.restored]
    if divergence.origin.key.op.startswith("aten._amp_"):
        # Its first steps may be left out, so that data and optimizers seem to be others.
        said = "gradients are scaled otherwise than in the straight run"
        return _cause([], said, "save GradScaler's scaler.state_dict(), and load it")
    lost = _in_the_middle(divergence, resumption.step)
    if lost:
        wrong = [item for item in wrong if item.what != "data"]
        cure = "save where a step ends; or save each parameter's .grad, and give it back"
        return _cause(wrong, lost, cure)
    wrong.sort(key=lambda item: _ORDER.index(item.what))
    case = Case(divergence, zoomed)
    explaining = [item for item in wrong if _explains(item, case, resumption.step, made)]
    others = [item for item in wrong if item not in explaining]
    if explaining:
        return _cause([*explaining, *others])
    if divergence.origin.kind == "structural":
        end = resumption.step + resumption.resumed
        if end > resumption.straight or divergence.origin.key.step >= end:
            said = f"it goes on to step {end}, the straight run to step {resumption.straight}"
        else:
            said = "it takes another path, with the state that was recorded as it was"
        return _cause(wrong, said, "restore the program's own counters: of steps, epochs, batches")
    kind, _, name = divergence.origin.key.op.partition(":")
    if kind == "state":
        said = f"{name} keeps other values: {divergence.origin.output_name}"
        return _cause(wrong, said, _REMEDIES["optimizer"])
    if kind == "options":
        said = f"{name}'s options begin the same and then change otherwise"
        return _cause(wrong, said, _SCHEDULE)
    cause = classify(divergence, zoomed)
    if cause.cls in {"nondeterministic-op", "uninitialized-memory"}:
        return cause
    if case.flags & RANDOM:
        said, cure = "it draws in another size or range than the straight run", _OWN
        if zoomed is None or zoomed.inputs_identical is not False:
            said = "it draws from a generator of the program's own, in another state"
            cure = (
                "save generator.get_state(), and give it to generator.set_state() when it resumes"
            )
        return _cause(wrong, said, cure, _before(divergence, more))
    said = made or "what was recorded of the state does not explain it: something else carries over"
    return _cause(wrong, said, _OWN, _before(divergence, more))


def _explains(item: Restored, case: Case, step: int, made: str | None) -> bool:
    """True if what was not restored may be why the runs part where they do."""
    key, i = case.divergence.origin.key, case.divergence.i
    entering = i is not None and case.divergence.a.kind[i] == KIND_PARAM and key.phase == "weights"
    if item.what == "weights":
        return entering or made is None
    if item.what in {"optimizer", "options"}:
        return key.step > step or key.phase == "optimizer" or entering
    drawn = bool(case.flags & RANDOM) or key.op.startswith("seed:")
    came_in = key.phase == "data" or key.op.startswith("inputs:")
    if item.what == "generator":
        own = bool(case.flags & OWN_GENERATOR)
        return not own and (drawn or (made is None and not entering))
    return made is None and (came_in or not (drawn or entering))


def _in_the_middle(divergence: Divergence, step: int) -> str:
    """What is lost where the resumed run's first step has but the last data of the straight one's.

    Gradients of several batches may be added up in one step.
    """
    mine, other = (
        [trace.signature(i) for i in np.flatnonzero(came).tolist()]
        for trace in (divergence.a, divergence.b)
        for came in [(column(trace.kind) == KIND_BATCH) & (column(trace.step) == step)]
    )
    left = len(mine) - len(other)
    if left <= 0 or not other or None in other or mine[left:] != other:
        return ""
    more = "what came in before, and its gradients, are not there"
    return (
        f"it goes on within step {step}, with the last {len(other)} of {len(mine)} inputs: {more}"
    )


def _before(divergence: Divergence, more: Sequence[int]) -> str:
    """What the resumed run alone did before the origin."""
    j = divergence.j
    alone = [at for at in more if j is not None and at < j]
    if not alone:
        return ""
    event = divergence.b.event(alone[0])
    line = f" at {event.line}" if event.line else ""
    op = event.key.op.removesuffix(".default")
    return f"before that it does {len(alone):,} more than the straight run, first {op}{line}"


def made_by(straight: Trace, i: int, resumed: Trace, j: int) -> str | None:
    """What gave the straight run the first value of an event that differs; None if unknown.

    Of an operator an input; of what enters a module that itself. A value of a few numbers may have
    the bits of another one.
    """
    one, two = straight.event(i), resumed.event(j)
    enters = one.key.op.startswith("inputs:")
    mine, other = (one.outputs, two.outputs) if enters else (one.inputs or (), two.inputs or ())
    for x, y in zip(mine, other, strict=False):
        if (x.spec, x.digest) == (y.spec, y.digest):
            continue
        maker = straight.maker(i, x.digest) if x.digest is not None and telling(x) else None
        if maker is None or straight.phase[maker] == DATA:
            return None
        event = straight.event(maker)
        line = f" at {event.line}" if event.line else ""
        op = event.key.op.removesuffix(".default")
        step = f", in step {event.key.step}" if event.key.step != straight.step[i] else ""
        return f"the straight run has there what {op} gave{line}{step}, the resumed run does not"
    return None


def _cause(wrong: list[Restored], evidence: str = "", remedy: str = "", also: str = "") -> Cause:
    said = [evidence, also, *map(_evidence, wrong)]
    cures = [remedy, *map(_remedy, wrong)]
    return Cause(
        "unrestored-state",
        "likely",
        tuple(filter(None, said)),
        tuple(filter(None, dict.fromkeys(cures))),
    )


def _evidence(item: Restored) -> str:
    if item.what == "generator":
        said = f"{_generator(item.name)} is not in the state that the straight run had"
        return said if item.compared == 1 else f"{said}: {_shown(item)}"
    if item.what == "data":
        return "it takes other data in this step"
    names = _shown(item)
    if item.what == "weights":
        of = f"{item.differing:,} of {item.compared:,}"
        return f"{of} weights are not the straight run's: {names}"
    if item.what == "options":
        return f"{item.name} has other options: {names}"
    if item.names[0].startswith("tensors=0,"):
        return f"{item.name} keeps nothing: {item.names[0]}"
    return f"{item.name} keeps other values: {names}"


def _shown(item: Restored) -> str:
    more = item.differing - _SHOWN
    return ", ".join(item.names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _remedy(item: Restored) -> str:
    if item.what == "generator":
        base, _, device = item.name.partition(".")
        kind = device.partition(":")[0]
        # An Apple machine has one device.
        every = "" if kind == "mps" else "_all"
        module = f"{base}.{kind}" if kind else base
        get, put = (
            (f"{module}.get_rng_state{every}()", f"{module}.set_rng_state{every}()")
            if kind
            else _SET_STATE[base]
        )
        return f"save {get}, and give it to {put} when it resumes"
    return _REMEDIES[item.what]


def _generator(name: str) -> str:
    base, _, device = name.partition(".")
    return f"{_GENERATORS[base]}'s generator" + (f" of {device}" if device else "")
