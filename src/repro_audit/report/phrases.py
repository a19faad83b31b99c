"""How an audit's values are said in words; plain strings, no layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from repro_audit.model import (
    Audit,
    Cause,
    CauseClass,
    Cure,
    Deviation,
    Experiment,
    Json,
    ManifestDifference,
    Origin,
    Pass,
    SiteKey,
    TensorSpec,
    UlpDivergence,
    Unseen,
)

# Of a recorded condition, in a line of text.
_LONGEST = 40
_FIXED_BY_THE_AUDIT: dict[CauseClass, str] = {
    "unseeded-rng": "fixes its seeds",
    "rng-drift": "fixes its seeds",
    "data-order": "fixes the hash seed and the order of directory listings",
    "uninitialized-memory": "leaves uninitialized memory as it happens to be",
}


def printable(text: str) -> str:
    """`text` with everything that is no plain character written as a backslash escape.

    Names come from the audited program: an escape sequence, a direction override or a lone
    surrogate must neither reach the terminal nor break the encoding.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def number(value: int) -> str:
    """`65,536`; from 10^9 on, where digits stop helping, `1.4e+12` as `1.4e12`."""
    return f"{value:,}" if abs(value) < 10**9 else short(float(value))


def short(value: float) -> str:
    """Two significant digits, as people write them: `2e-7`, `0.5`."""
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def count(n: int, noun: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number(n)} {noun}" if n == 1 else f"{number(n)} {noun}s"


def ordinal(n: int) -> str:
    """`1st`, `2nd`, `11th`."""
    suffix = "th" if n % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{number(n)}{suffix}"


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def passed(runs: Pass) -> str:
    """What runs looked at, or were for, and what they took: `modules 2 of 3.1 s`."""
    name = {"interval": "ops of the interval", "confirm": "as-is"}.get(runs.name, runs.name)
    return f"{name} {runs.runs} of {runs.seconds / runs.runs:.1f} s"


def experiments(tried: Sequence[Experiment], *, changed: bool = False) -> list[str]:
    """What was tried, by what came of it: `gone with one thread`, `still there with TF32 off`.

    With `changed` the runs agreed, and things were changed: `differs with another hash seed`.
    Of sets of conditions the last that suffices is told: it is the smallest.
    """
    sets = [one for one in tried if len(one.pins) > 1]
    shown = [one for one in tried if len(one.pins) == 1] + [
        one for one in sets if one.differs is False or len(sets) == 1
    ][-1:]
    said = []
    leads = (
        ("still the same with ", "differs with ")
        if changed
        else ("gone with ", "still there with ")
    )
    for differs, lead in enumerate(leads):
        which = [printable(one.said) for one in shown if one.differs == differs]
        if which:
            said.append(lead + "; ".join(which))
    said += [
        f"{printable(one.said)}: unknown ({printable(one.reason or 'no reason')})"
        for one in shown
        if one.differs is None
    ]
    return said


def cured(cure: Cure) -> str:
    """How the whole program did with it, and what it costs."""
    said = "that does not suffice: runs still differ"
    if cure.identical:
        said = f"{cure.runs} of {count(cure.runs, 'run')} identical"
    if cure.slowdown is not None:
        said += f", a step takes {cure.slowdown:.2f} times as long"
    return said


_UNSEEN = {
    "views": ("view", "views"),
    "empty": ("empty tensor until it was written", "empty tensors until they were written"),
    "unwritten": (
        "op that read memory that no op had written",
        "ops that read memory that no op had written",
    ),
    "compiled": ("compiled graph inside", "compiled graphs inside"),
    "cuda-graphs": ("replay of a CUDA graph inside", "replays of CUDA graphs inside"),
    "loader-workers": ("loader worker at work", "loader workers at work"),
    "native-threads": ("op in a thread of native code", "ops in threads of native code"),
}


def unseen(passed_by: Unseen) -> str:
    """`12 views`: what was recorded without its values, or not at all."""
    one, several = _UNSEEN.get(passed_by.what, (printable(passed_by.what),) * 2)
    return f"{number(passed_by.count)} {one if passed_by.count == 1 else several}"


def op_name(op: str) -> str:
    """An op without its overload (`aten.add.Tensor` is `aten.add`), a named state by its name."""
    kind, colon, name = op.partition(":")
    if kind == "inputs":
        return f"inputs of {printable(name)}"
    if kind in {"state", "options"}:
        return f"{kind} of {printable(name)}"
    if colon and kind in {"param", "seed", "rng", "draw"}:
        return printable(name)
    parts = op.split(".")
    return printable(".".join(parts[:2]) if len(parts) == 3 and parts[0] != "torch" else op)


def site(key: SiteKey, *, rank: int = 0, recompute: bool = False) -> tuple[str, ...]:
    """Where an event is, from the outside in: step, phase, module, op."""
    phase = f"{key.phase} (recompute)" if recompute else key.phase
    module = (printable(key.module),) if key.module else ()
    processes = (f"process {printable(key.process)}",) if key.process else ()
    ranks = (f"rank {rank}",) if rank else ()
    threads = (f"thread {printable(key.thread)}",) if key.thread else ()
    return (
        *processes,
        *ranks,
        *threads,
        f"step {key.step}",
        printable(phase),
        *module,
        op_name(key.op),
    )


def whereabouts(origin: Origin) -> str:
    """What places an origin in the source: the forward op, the call site, which call it was."""
    which = f"{ordinal(origin.key.call_index + 1)} call" if origin.key.call_index else ""
    caused_by = origin.caused_by
    if caused_by is None:
        at = f"at {printable(origin.line)}" if origin.call_site else ""
        return ", ".join(part for part in (which, at) if part)
    parameter = origin.key.op.startswith("param:")
    own = f"at {printable(origin.line)}" if origin.backward_code and origin.call_site else ""
    forward = f"{'written by' if parameter else 'of'} {op_name(caused_by.op)}"
    if caused_by.module != origin.key.module and not parameter:
        forward += f" in {printable(caused_by.module) or 'the root module'}"
    if caused_by.call_site:
        forward += f" at {printable(caused_by.line)}"
    elif origin.call_site and not own:
        forward += f", reached from {printable(origin.line)}"
    return ", ".join(part for part in (which, own, forward) if part)


def what_differs(origin: Origin) -> str:
    """The subject of the difference: whose value it is, and what is known of its inputs."""
    if origin.key.op.startswith("param:"):
        return "its value differs"
    if origin.key.op.startswith(("state:", "options:")):
        return f"{printable(origin.output_name)} differs"
    if origin.key.phase == "data":
        noun = "input" if origin.key.op.startswith("inputs:") else "batch"
        noun = "loaded tensor" if origin.key.op == "torch.load" else noun
        name = printable(origin.output_name)
        return f"{noun} {name} differs" if name else f"the {noun} differs"
    if origin.key.phase == "rng":
        return "the seed differs" if origin.key.op.startswith("seed:") else "the state differs"
    output = "output"
    if origin.output_name:
        output += f" {printable(origin.output_name)}"
    elif origin.output:
        output += f" {origin.output}"
    if origin.inputs_identical is None:
        return f"inputs not checked, {output} differs"
    return (
        f"inputs identical, {output} differs"
        if origin.inputs_identical
        else f"inputs already differed, {output} differs"
    )


def in_ulp(dtype: str) -> bool:
    """True for floating-point numbers, whose distance is in ULP; integers differ by so many."""
    return dtype.startswith(("float", "bfloat", "complex"))


def has_ulp(figures: UlpDivergence) -> bool:
    """True where two tensors of floating-point numbers are compared."""
    return in_ulp(figures.dtype)


def ulp(figures: UlpDivergence) -> list[str]:
    """How far apart two tensors are: phrases from the most to the least telling."""
    whole = not has_ulp(figures)
    phrases = [f"{number(figures.differing)} of {count(figures.numel, 'element')}"]
    if figures.max_ulp:
        phrases.append(
            f"max difference {number(figures.max_ulp)} ({figures.dtype})"
            if whole
            else f"max {number(figures.max_ulp)} ULP ({figures.dtype})"
        )
    if figures.max_relative:
        phrases.append(f"max relative {short(figures.max_relative)}")
    apart = (
        (figures.unordered, "NaN against a number"),
        (figures.nan_payload, "in a NaN's payload only"),
        (figures.infinity, "infinite on one side"),
        (figures.signed_zero, "in the sign of zero only"),
    )
    phrases.extend(f"{number(n)} {said}" for n, said in apart if n)
    return phrases


def deviation(found: Deviation, spec: TensorSpec) -> str:
    """How far apart, first by the size of the whole: ULP alone mislead near zero."""
    said = f"{short(found.rms)} of its size"
    if found.unordered:
        return f"{said} ({number(found.unordered)} NaN against a number)"
    return f"{said} ({number(found.max_ulp)} ULP)" if in_ulp(spec.dtype) else said


def spec(origin: Origin) -> str:
    """`float32[1000, 64] on cpu`; empty where the origin has no tensor."""
    if origin.spec is None or origin.spec.dtype == "python":
        return ""
    shape = ", ".join(str(n) for n in origin.spec.shape)
    return f"{printable(origin.spec.dtype)}[{shape}] on {printable(origin.spec.device)}"


def held_still(audit: Audit) -> bool:
    """True if what as-is did not repeat repeats because of what the audit held still.

    Where each of its conditions was changed by itself and none made a difference it may be chance.
    """
    confirmation, tried = audit.confirmation, audit.explanation
    if confirmation is None or confirmation.holds:
        return False
    return tried is None or any(experiment.differs for experiment in tried.experiments)


def may_be_explained(audit: Audit) -> bool:
    """True if --explain has something to look for, and was not asked for."""
    return audit.command == "run" and audit.verdict == "divergent" and audit.explanation is None


def repeats_because(cause: Cause | None) -> str:
    """What a controlled run held still, told by what went wrong without it, if that is proven."""
    if cause is None or cause.confidence != "proven" or cause.cls not in _FIXED_BY_THE_AUDIT:
        return "repeats under the audit's control"
    return f"repeats only because the audit {_FIXED_BY_THE_AUDIT[cause.cls]}"


def setting(value: Json) -> str:
    """A recorded condition; `unset` where there is none."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return "unset" if value is None else printable(text) or '""'


def manifest_difference(difference: ManifestDifference) -> str:
    """`versions.torch: 2.13.0 in run-1 and run-2, 2.12.0 in run-3`.

    Long values are told from where they part.
    """
    runs_by_value: dict[str, list[str]] = {}
    for run, value in difference.values.items():
        runs_by_value.setdefault(setting(value), []).append(printable(run))
    alike = 0
    for letters in zip(*runs_by_value, strict=False) if len(runs_by_value) > 1 else ():
        if len(set(letters)) > 1:
            break
        alike += 1
    said = ", ".join(
        f"{_from(value, alike)} in {listing(runs)}" for value, runs in runs_by_value.items()
    )
    return f"{printable(difference.field)}: {said}"


def _from(value: str, alike: int) -> str:
    """At most some 40 characters of a value, those among them at which it parts from others."""
    if len(value) <= _LONGEST:
        return value
    begin = max(0, alike - _LONGEST // 2)
    shown = value[begin : begin + _LONGEST - 3]
    return f"{'...' if begin else ''}{shown}{'...' if begin + len(shown) < len(value) else ''}"


def missed(runs: int) -> float:
    """The largest chance that `runs` equal runs hide a divergence in 1 of 4 pairs of runs.

    With p_i the chance of outcome i, two runs agree with chance s = Σ p_i² = 3/4, and `runs` runs
    agree with chance Σ p_i^runs ≤ s^(runs/2), since norms fall with their exponent. The pairs of
    more than two runs are not independent: s^pairs would promise too much.
    """
    return float(0.75 ** (runs / 2))
