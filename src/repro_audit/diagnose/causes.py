"""Likely causes of a divergence, from what the traces show; an experiment alone proves one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from repro_audit.diagnose.align import column
from repro_audit.diagnose.case import Case
from repro_audit.diagnose.devices import other_device
from repro_audit.diagnose.entered import (
    came_in,
    computed_before,
    data_order,
    left_files,
    written_before,
)
from repro_audit.diagnose.generators import draw, drawn, one_draw_more, seeding_call
from repro_audit.diagnose.nondeterministic import why
from repro_audit.diagnose.origin import Divergence
from repro_audit.diagnose.unlike import other_line, other_size
from repro_audit.diagnose.zoomed import Zoomed
from repro_audit.model import Cause
from repro_audit.model.codes import DATA, HELD, KIND_BATCH, KIND_STATE, RANDOM, TAINTED

_OUTSIDE = "look for memory written outside torch (.numpy(), buffers)"


def classify(divergence: Divergence, zoomed: Zoomed | None) -> Cause:
    """The likeliest cause, `unknown` where nothing in the traces speaks for one."""
    case = Case(divergence, zoomed)
    for rule in _RULES:
        cause = rule(case)
        if cause is not None:
            return cause
    return _unknown(case)


def by_confirming(divergence: Divergence, cause: Cause) -> Cause:
    """`cause`, or what a run as-is changed that nothing shows of, where that is not known.

    Empty memory is seen where it is read, and torch's generators where they are drawn from; others
    give numbers that an op is given, or that decide which tensor it is.
    """
    case = Case(divergence, None)
    if cause.cls != "unknown" or left_files(divergence) is not None:
        return cause
    generators = drawn(case)
    if generators is not None:
        return generators
    explain = "--explain, which tells what decides"
    threads = sum(thread.process == case.process for thread in case.trace.threads)
    if divergence.seeding is not None or threads > 1:
        return replace(_seeded(case, cause), remedies=(*cause.remedies, explain))
    changed = "another hash seed and another order of directory listings"
    likely = data_order(f"as-is there is {changed}; nothing recorded speaks for something else")
    return replace(likely, remedies=(*likely.remedies, explain))


def _seeded(case: Case, cause: Cause) -> Cause:
    """`cause`, with a generator of the program's own that may be behind what is not known."""
    if case.divergence.seeding is None:
        return cause
    evidence = f"it may come from {case.divergence.seeding}, from another state in each run"
    fixed = "give that generator a fixed seed"
    return replace(cause, evidence=(*cause.evidence, evidence), remedies=(fixed, *cause.remedies))


def _unwritten_memory(case: Case) -> Cause | None:
    # Of what is handed over or kept by an optimizer, memory that nobody wrote is not compared.
    if not case.flags & TAINTED or case.trace.kind[case.event] in {KIND_BATCH, KIND_STATE}:
        return None
    held = case.trace.kind[case.event] in HELD
    what = "it is memory" if held else "it reads memory"
    return Cause(
        "uninitialized-memory",
        "likely",
        (f"{what} from torch.empty that no op had wholly written before",),
        ("use torch.zeros, or write every element before the first read",),
    )


def _elsewhere(case: Case) -> Cause | None:
    """The same op, of another line: one run came here by another way."""
    return _otherwise(case, other_line(case.divergence))


def _size(case: Case) -> Cause | None:
    """More of it in one run than in the other."""
    return None if case.flags & TAINTED else _otherwise(case, other_size(case.divergence))


def _otherwise(case: Case, other: Cause | None) -> Cause | None:
    # The same results in another order may be of several lines or sizes.
    if other is None or _same_values_in_another_order(case):
        return None
    return drawn(case) or left_files(case.divergence) or _seeded(case, other)


def _nondeterministic_op(case: Case) -> Cause | None:
    spec = case.divergence.origin.spec
    accumulates = case.zoomed.accumulates if case.zoomed is not None else None
    reason = why(case.op, spec.device if spec is not None else "cpu", accumulates)
    if reason is None or case.divergence.origin.kind == "structural":
        return None
    if case.zoomed is not None and case.zoomed.differs and case.zoomed.inputs_identical is False:
        return None
    return Cause("nondeterministic-op", "likely", (reason,), ("--deterministic",), "torch docs")


def _argument(case: Case) -> Cause | None:
    """A value that Python made, of a generator that was drawn from or of whatever else."""
    if case.zoomed is None or not case.zoomed.given:
        return None
    other = Cause(
        "unknown",
        "likely",
        (case.zoomed.given,),
        ("look at what makes it in Python: time, os.urandom, a set, a generator of its own",),
    )
    return drawn(case) or _seeded(case, other)


def _order(case: Case) -> Cause | None:
    # From the same inputs it is the op that orders its results as it likes.
    if (
        case.zoomed is not None
        and case.zoomed.reordered
        and case.zoomed.inputs_identical is not True
    ):
        rows = case.zoomed.reordered
        return data_order(f"the same {rows:,} rows, in another order")
    if case.zoomed is not None and case.zoomed.exchanged:
        taken = data_order("what it is given both runs had before, and took in another order")
        return drawn(case) or _seeded(case, taken)
    same = _same_values_in_another_order(case)
    if same:
        return data_order(f"the same {same:,} results, in another order, come out of this op")
    return None


def _batch(case: Case) -> Cause | None:
    """Data that came in different: from a generator that was drawn from, else from outside.

    What a loader's collation stacks, rows of a tensor that was there before, comes in as well.
    """
    batch = case.trace.kind[case.event] == KIND_BATCH
    collated = not batch and case.trace.phase[case.event] == DATA and not _same_inputs(case)
    if not batch and not collated:
        return None
    return (
        drawn(case)
        or computed_before(case.divergence)
        or left_files(case.divergence)
        or _seeded(case, came_in(case.divergence, case.zoomed, collated=collated))
    )


def _written(case: Case) -> Cause | None:
    """Parameters that were written before they had names, one in place of another."""
    written = written_before(case.divergence)
    return None if written is None else drawn(case) or _seeded(case, written)


def _path(case: Case) -> Cause | None:
    """Another path: chosen by a generator that was drawn from and not, or differently, seeded."""
    if case.divergence.origin.kind != "structural":
        return None
    cause = drawn(case) or left_files(case.divergence)
    if cause is None and case.flags & RANDOM:
        return one_draw_more()
    return cause


def _threads(case: Case) -> Cause | None:
    """Threads of Python's run the same line, and one of them found what another had written."""
    if case.zoomed is None or case.zoomed.inputs_identical is not False:
        return None
    trace, site = case.trace, case.trace.site[case.event]
    owners = {trace.owner(i) for i, number in enumerate(trace.site) if number == site}
    others = [owner for owner in owners if owner.process == case.process]
    if len(others) < 2:
        return None
    return Cause(
        "parallelism",
        "likely",
        (f"{len(others)} of Python's threads run this op, and its inputs differ",),
        ("combine what threads compute in a fixed order, by the main thread",),
    )


def _processes(case: Case) -> Cause | None:
    """Processes train one model in memory that they share, and find what another had written."""
    sharing = sum(bool(file.closing.get("shared")) for file in case.trace.files)
    if sharing < 2 or case.divergence.origin.kind == "structural" or _same_inputs(case):
        return None
    return Cause(
        "parallelism",
        "likely",
        (f"{sharing} processes have parameters in memory that processes share (share_memory)",),
        ("let one process write them, or each in its turn: a lock alone sets no order",),
    )


def _op_itself(case: Case) -> Cause | None:
    """Same inputs, another output, the same draw or none: whatever it is is inside the op."""
    zoomed = case.zoomed
    if zoomed is None or not zoomed.differs or not zoomed.inputs_identical:
        return None
    draws = bool(case.flags & RANDOM)
    if draws and not zoomed.generators_identical:
        return None
    how = "its generator was in the same state" if draws else "the op draws no random numbers"
    return Cause(
        "nondeterministic-op",
        "likely",
        (f"the same inputs gave another output, and {how}",),
        (
            "--deterministic, if the op heeds torch's switch",
            "one thread: torch.set_num_threads(1)",
            "another op",
        ),
    )


def _unknown(case: Case) -> Cause:
    files = left_files(case.divergence) if not _same_inputs(case) else None
    if files is not None:
        return files
    if case.divergence.origin.kind == "structural":
        return Cause(
            "unknown",
            "likely",
            ("the runs took different paths here, after the same values",),
            ("look for a branch or an order that depends on time, hashes or addresses",),
        )
    if case.zoomed is not None and case.zoomed.inputs_identical is False:
        remedy = f"{_OUTSIDE}, or another order"
        if sum(thread.process == case.process for thread in case.trace.threads) > 1:
            remedy = "look at the order in which threads' results are taken (as_completed)"
        return Cause(
            "unknown",
            "likely",
            ("its inputs differ, though all that was recorded before agrees",),
            (remedy,),
        )
    if case.trace.kind[case.event] in HELD:
        evidence = "it differs, though all that was recorded before agrees"
        remedy = f"{_OUTSIDE}, or extensions' kernels"
        if case.zoomed is None and case.trace.site[case.event] in case.trace.site[: case.event]:
            # What an optimizer is told is seen in runs that look at its operators alone.
            remedy = f"compare what its optimizer is told (learning rate, momentum); else {remedy}"
        return Cause("unknown", "likely", (evidence,), (remedy,))
    return Cause(
        "unknown",
        "likely",
        ("nothing recorded points at a cause",),
        ("--deterministic shows whether a switch of torch's cures it",),
    )


def _same_inputs(case: Case) -> bool:
    return case.zoomed is not None and case.zoomed.inputs_identical is True


def _same_values_in_another_order(case: Case) -> int:
    """How many results this site has in the step, if both runs have the same ones, reordered."""
    found = []
    for trace, at in (
        (case.divergence.a, case.divergence.i),
        (case.divergence.b, case.divergence.j),
    ):
        if at is None:
            return 0
        alike = [column(values) == values[at] for values in (trace.step, trace.phase, trace.site)]
        found.append(
            [trace.signature(i) for i in np.flatnonzero(np.logical_and.reduce(alike)).tolist()]
        )
    mine, other = found
    if len(mine) < 2 or mine == other or sorted(map(bytes, _known(mine))) != sorted(_known(other)):
        return 0
    return len(mine)


def _known(signatures: list[bytes | None]) -> list[bytes]:
    return [signature for signature in signatures if signature is not None]


_RULES: tuple[Callable[[Case], Cause | None], ...] = (
    seeding_call,
    other_device,
    _elsewhere,
    _size,
    draw,
    _argument,
    _order,
    _nondeterministic_op,
    _unwritten_memory,
    _batch,
    _written,
    _path,
    _threads,
    _processes,
    _op_itself,
)
