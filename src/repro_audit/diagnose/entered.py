"""Where data that differs comes from: files of an earlier run, values that were there before."""

from __future__ import annotations

import math

import numpy as np

from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.zoomed import Zoomed
from repro_audit.model import Cause, Output, TensorSpec
from repro_audit.model.codes import KIND_BATCH
from repro_audit.trace import Trace

# In the path of what inductor keeps from one process to the next.
COMPILED = "torchinductor_"
_REAL = ("float", "bfloat", "complex")
# A tensor of fewer numbers may have the bits of another one.
_FEW = 4


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
            line = f" at {made.call_site}" if made.call_site else ""
            return Cause(
                "unknown",
                "likely",
                (f"{trace.run} has what {op}{line} gave; the other run, something else",),
                ("look for what writes to its memory outside torch: .numpy(), an extension",),
            )
    return None


def came_in(found: Divergence, zoomed: Zoomed | None) -> Cause:
    """Data that differs as it comes in: another order of the same, unless that is ruled out."""
    spec = found.origin.spec
    many = spec is not None and spec.dtype != "bool" and math.prod(spec.shape) >= _FEW
    one = _batches(found.a, found.i) & _batches(found.b, None)
    other = _batches(found.b, found.j) & _batches(found.a, None)
    if many and (one or other):
        return data_order("the other run has the same data elsewhere")
    seen = zoomed is not None and zoomed.differs
    if seen and many and spec is not None and _is_sample(spec):
        return Cause(
            "unknown",
            "likely",
            ("other values came in, before any op: they are not the same in another order",),
            ("look at what makes them: an environment or generator unseeded, time, os.urandom",),
        )
    return Cause(
        "data-order",
        "likely",
        ("the data already differed when it came in, before any op",),
        ("look at what makes it: file order, sets, workers, generators or environments unseeded",),
    )


def _is_sample(spec: TensorSpec) -> bool:
    """True for a vector of real numbers: of a batch, or its labels, the rows may come anew."""
    return spec.dtype.startswith(_REAL) and sum(size > 1 for size in spec.shape) <= 1


def _batches(trace: Trace, at: int | None) -> set[bytes]:
    """What came in from outside, or at one event, by its bits."""
    kinds = np.asarray(trace.kind)
    events = np.flatnonzero(kinds == KIND_BATCH).tolist() if at is None else [at]
    signatures = [trace.signature(i) for i in events]
    return {signature for signature in signatures if signature is not None}


def telling(output: Output) -> bool:
    """False for values that come again by chance: of a few numbers, or of integers."""
    numbers = math.prod(output.spec.shape)
    return output.spec.dtype.startswith(_REAL) and numbers >= _FEW
