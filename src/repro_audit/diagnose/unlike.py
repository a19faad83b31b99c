"""Events that were taken for the same and are not: of another line, or of another size."""

from __future__ import annotations

from repro_audit.diagnose.origin import Divergence
from repro_audit.model import Cause


def other_line(found: Divergence) -> Cause | None:
    """The runs are at two lines of one and the same script: one came there by another way."""
    if found.i is None or found.j is None:
        return None
    targets = [trace.manifest.get("target", {}) for trace in (found.a, found.b)]
    events = [found.a.event(found.i), found.b.event(found.j)]
    lines = [event.called_from or event.call_site or "" for event in events]
    files = {line.rpartition(":")[0] for line in lines}
    source, script = targets[0].get("sha256"), str(targets[0].get("label"))
    # Of a program that was edited between the runs lines say nothing.
    unedited = source is not None and source == targets[1].get("sha256")
    if lines[0] == lines[1] or len(files) > 1 or not unedited:
        return None
    if not script.endswith(files.pop() or ":"):
        return None
    return Cause(
        "unknown",
        "likely",
        (f"the runs took different paths: {lines[0]} in one, {lines[1]} in the other",),
        ("look for what one does before and the other does not, such as an evaluation",),
    )


def other_size(found: Divergence) -> Cause | None:
    """More of it in one run than in the other: no op and no seed of torch's makes that."""
    at = found.origin.output
    if found.i is None or found.j is None or at is None:
        return None
    outputs = found.a.event(found.i).outputs, found.b.event(found.j).outputs
    specs = [own[at].spec for own in outputs if len(own) > at]
    if len(specs) < 2 or specs[0].shape == specs[1].shape:
        return None
    told = [f"{spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in specs]
    return Cause(
        "unknown",
        "likely",
        (f"it is {told[0]} in one run and {told[1]} in the other",),
        ("look at what decides how much there is: a batch's size, a split, a filter, free memory",),
    )
