"""Why a resumed run does not go on as the straight one did: what it began with, or what else."""

from __future__ import annotations

from repro_audit.diagnose.causes import classify
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed
from repro_audit.model import Cause, Restored, Resumption
from repro_audit.model.codes import KIND_PARAM
from repro_audit.trace import Trace

_SHOWN = 3
_GENERATORS = {"torch": "torch", "python": "Python", "numpy": "NumPy"}
_SET_STATE = {
    "torch": ("torch.get_rng_state()", "torch.set_rng_state()"),
    "python": ("random.getstate()", "random.setstate()"),
    "numpy": ("numpy.random.get_state()", "numpy.random.set_state()"),
}
_OF_CUDA = ("torch.cuda.get_rng_state_all()", "torch.cuda.set_rng_state_all()")
_SCHEDULE = "save scheduler.state_dict(), and load it after the optimizer's"
_REMEDIES = {
    "weights": "save and load all of model.state_dict(), buffers too",
    "data": "skip the batches that are done, or save a StatefulDataLoader's state_dict()",
    "optimizer": "save optimizer.state_dict(), and load it",
    "options": _SCHEDULE,
}
# What may follow from what: data are drawn.
_ORDER = ("weights", "generator", "data", "optimizer", "options")


def unrestored(
    divergence: Divergence, zoomed: Zoomed | None, resumption: Resumption, made: str | None
) -> Cause:
    """The likeliest cause of a divergence of a resumed run.

    What was not restored, where it may explain the origin; else what explains a divergence of any
    two runs; else that it is something that was not recorded. `made` says what made the input of
    the origin that differs.
    """
    wrong = [item for item in resumption.state if not item.restored]
    wrong.sort(key=lambda item: _ORDER.index(item.what))
    late = _uses_optimizers(divergence, resumption.step)
    if any(late or item.what not in {"optimizer", "options"} for item in wrong):
        return _cause(wrong)
    if divergence.origin.kind == "structural":
        end = resumption.step + resumption.resumed
        if end != resumption.straight and resumption.compared in {
            resumption.resumed,
            resumption.straight - resumption.step,
        }:
            said = f"it goes on to step {end}, the straight run to step {resumption.straight}"
        else:
            said = "it takes another path, with the state that was recorded as it was"
        return _cause(wrong, said, "restore the program's own counters: of steps, epochs, batches")
    if divergence.origin.key.op.startswith("options:"):
        name = divergence.origin.key.op.partition(":")[2]
        return _cause(
            wrong, f"{name}'s options begin the same and then change otherwise", _SCHEDULE
        )
    cause = classify(divergence, zoomed)
    if cause.cls in {"nondeterministic-op", "uninitialized-memory"}:
        return cause
    return _cause(
        wrong,
        made or "weights, data and generators are as they were: something else carries over",
        "restore what the program keeps itself: GradScaler, averages, counters, caches",
    )


def made_by(straight: Trace, i: int, resumed: Trace, j: int) -> str | None:
    """What gave the straight run the first input of an event that differs; None if unknown."""
    mine, other = straight.event(i).inputs or (), resumed.event(j).inputs or ()
    for x, y in zip(mine, other, strict=False):
        if x.bits == y.bits:
            continue
        maker = None if x.digest is None else straight.maker(i, x.digest)
        if maker is None:
            return None
        event = straight.event(maker)
        line = f" at {event.call_site}" if event.call_site else ""
        op = event.key.op.removesuffix(".default")
        step = f", in step {event.key.step}" if event.key.step != straight.step[i] else ""
        return f"the straight run has there what {op} gave{line}{step}, the resumed run does not"
    return None


def _cause(wrong: list[Restored], evidence: str = "", remedy: str = "") -> Cause:
    said = [evidence, *map(_evidence, wrong)]
    cures = [remedy, *map(_remedy, wrong)]
    return Cause(
        "unrestored-state",
        "likely",
        tuple(filter(None, said)),
        tuple(filter(None, dict.fromkeys(cures))),
    )


def _uses_optimizers(divergence: Divergence, step: int) -> bool:
    """True where what an optimizer has may have played a part."""
    key = divergence.origin.key
    if key.step > step or key.phase == "optimizer":
        return True
    i = divergence.i
    return key.phase == "weights" and i is not None and divergence.a.kind[i] == KIND_PARAM


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
        get, put = _OF_CUDA if "." in item.name else _SET_STATE[item.name]
        return f"save {get}, and give it to {put}"
    return _REMEDIES[item.what]


def _generator(name: str) -> str:
    base, _, device = name.partition(".")
    return f"{_GENERATORS[base]}'s generator" + (f" of {device}" if device else "")
