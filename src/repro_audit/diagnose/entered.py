"""Where data that differs comes from: files of an earlier run, values that were there before."""

from __future__ import annotations

import numpy as np

from repro_audit.diagnose.align import column
from repro_audit.diagnose.origin import Divergence, writer_of
from repro_audit.diagnose.zoomed import FEW, Zoomed, telling
from repro_audit.model import Cause
from repro_audit.model.codes import DATA, KIND_BATCH, KIND_PARAM
from repro_audit.trace import Trace

# In the path of what inductor keeps from one process to the next.
COMPILED = "torchinductor_"


def data_order(evidence: str) -> Cause:
    """The same data, in another order."""
    return Cause(
        "data-order",
        "likely",
        (evidence,),
        ("sort what is iterated over: a set, a directory listing, finished workers",),
    )


def left_files(found: Divergence) -> Cause | None:
    """One of the runs read files that the other found otherwise, or not: a checkpoint, a cache."""
    for mine, other in ((found.b, found.a), (found.a, found.b)):
        known = other.stale_reads
        # What a compiler left there is code, the same that the other run had it make.
        left = [at for at in mine.stale_reads if at not in known and COMPILED not in at]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            return Cause(
                "unknown",
                "likely",
                (f"{mine.run} read {left[0]}{more}, which an earlier run had left or changed",),
                ("--isolate, which gives each run its own copy of the directory",),
            )
    return None


def computed_before(found: Divergence) -> Cause | None:
    """A module's input that is no data from outside: both runs had computed it, or one of them."""
    at = found.origin.output
    if not found.origin.key.op.startswith("inputs:") or None in {found.i, found.j, at}:
        return None
    makers = []
    for trace, event in ((found.a, found.i), (found.b, found.j)):
        outputs = trace.event(event or 0).outputs
        if at is None or at >= len(outputs) or not telling(outputs[at]):
            return None
        makers.append(trace.maker(event or 0, outputs[at].digest or b""))
    if None not in makers:
        return data_order("both are values that the runs had before, taken in another order")
    for trace, maker in zip((found.a, found.b), makers, strict=True):
        if maker is not None:
            made = trace.event(maker)
            op = made.key.op.removesuffix(".default")
            line = f" at {made.line}" if made.line else ""
            return Cause(
                "unknown",
                "likely",
                (f"{trace.run} has what {op}{line} gave; the other run, something else",),
                ("look for what writes to its memory outside torch: .numpy(), an extension",),
            )
    return None


def written_before(found: Divergence) -> Cause | None:
    """A parameter's value, which both runs had computed: they wrote it to different ones."""
    for trace, at in ((found.a, found.i), (found.b, found.j)):
        if at is None or trace.kind[at] != KIND_PARAM:
            return None
        if writer_of(trace, trace.event(at), found.origin.output) is None:
            return None
    return data_order("both are values that the runs had before, written in another order")


def came_in(found: Divergence, zoomed: Zoomed | None, *, collated: bool) -> Cause:
    """Data that differs as it comes in: another order of the same, as far as is known.

    Not what an op makes of it as it is `collated`, which may be more than rows put together.
    """
    spec = found.origin.spec
    if spec is not None and spec.dtype == "python":
        return Cause(
            "unknown",
            "likely",
            ("it is no tensor, and differs as it comes in",),
            ("look at what makes it in Python: time, os.urandom, a set, a generator of its own",),
        )
    same, rows = (0, 0) if zoomed is None else zoomed.in_place
    if rows >= FEW and 2 * same >= rows:
        return Cause(
            "unknown",
            "likely",
            (f"{rows - same:,} of {rows:,} rows came in otherwise, the others are in place",),
            ("look at what changes these: augmentation, noise, a worker's own generator, files",),
        )
    if collated and found.origin.kind == "structural":
        return Cause(
            "unknown",
            "likely",
            ("one run puts more data together here than the other",),
            ("look at how many batches a step takes: accumulation, batches fetched ahead",),
        )
    if found.i is not None and found.j is not None and _swapped(found, found.i, found.j):
        return data_order("the other run has the same data elsewhere")
    how = "was put together" if collated else "came in, before any op"
    return Cause(
        "unknown" if collated else "data-order",
        "likely",
        (f"the data already differed when it {how}",),
        ("look at what makes it: file order, sets, workers, generators or environments unseeded",),
    )


def _swapped(found: Divergence, i: int, j: int) -> bool:
    """True if each run has elsewhere what the other has here, of values that tell."""
    if not all(telling(t.event(at).outputs[0]) for t, at in ((found.a, i), (found.b, j))):
        return False
    mine, other = _batches(found.a), _batches(found.b)
    return found.a.signature(i) in other and found.b.signature(j) in mine


def _batches(trace: Trace) -> set[bytes | None]:
    """All that came in from outside, and what was made of it there, by its bits."""
    came = (column(trace.kind) == KIND_BATCH) | (column(trace.phase) == DATA)
    events = np.flatnonzero(came)
    return {trace.signature(i) for i in events.tolist()} - {None}
