"""Fabricated audits, one for each thing a report can have to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro_audit.control.pins import BY_NAME
from repro_audit.model import (
    Audit,
    Cause,
    CausedBy,
    Confirmation,
    Cure,
    EventCounts,
    Experiment,
    Explanation,
    ManifestDifference,
    Observed,
    Origin,
    Pass,
    Replay,
    Reproducer,
    RunInfo,
    SelfCheck,
    Sighting,
    SiteKey,
    TensorSpec,
    UlpDivergence,
    Unseen,
    Warn,
)

from .matrices import matrix_audits
from .overviews import overview_audits
from .recordings import recorded_audits
from .resumptions import resumed_audits
from .screenings import screened_audits

INF = float("inf")
HOSTILE = "[red]boom[/red] \x1b[31m\u202e\ue000 :smile: {x}%s\n\x00\udc80</script>"

ULP = UlpDivergence(
    dtype="float32",
    shape=(1024, 64),
    numel=65536,
    differing=412,
    unordered=0,
    nan_payload=0,
    signed_zero=0,
    infinity=0,
    sign_flips=0,
    max_ulp=3,
    max_index=(17, 5),
    max_values=(0.125, 0.12500003),
    first_index=(0, 9),
    first_values=(1.0, 1.0000001),
    sum_ulp=560,
    histogram=(65124, 300, 112),
    less=200,
    greater=212,
    max_absolute=3e-8,
    max_relative=2.4e-7,
)
SPEC = TensorSpec("float32", (1024, 64), "cpu")
KEY = SiteKey(0, "backward", "emb", "aten.index_put.default", 0)
ORIGIN = Origin(
    key=KEY,
    event=201,
    output=0,
    spec=SPEC,
    call_site="flaky_embedding.py:52",
    kind="value",
    caused_by=CausedBy("aten.index.Tensor", "emb", "flaky_embedding.py:31"),
    inputs_identical=True,
    ulp=ULP,
    ulp_runs=("zoom-1a", "zoom-1b"),
)
CAUSE = Cause(
    "nondeterministic-op",
    "likely",
    ("index_put(accumulate=True) adds in whatever order threads arrive",),
    ("--deterministic",),
    "torch docs",
)
UNKNOWN = Cause("unknown", "likely", (), ())


def _run(name: str, **manifest: object) -> RunInfo:
    recorded = {"steps": 3, "torch": {"version": "2.13.0"}, **manifest}
    trace = f".repro-audit/0003-flaky_embedding/{name}.sqlite"
    return RunInfo(name, trace, recorded, seconds=4.25)


DIVERGENT = Audit(
    command="run",
    target="flaky_embedding.py",
    mode="controlled",
    verdict="divergent",
    engine="avx2",
    runs=(_run("run-1"), _run("run-2")),
    events=EventCounts(442, 265, 177),
    observed=Observed(2, 2, 1, 1),
    origin=ORIGIN,
    cause=CAUSE,
    printed_identical=True,
    directory=".repro-audit/0003-flaky_embedding",
)
IDENTICAL = replace(
    DIVERGENT,
    verdict="identical",
    events=EventCounts(442, 442, 0),
    observed=Observed(2, 1, 0, 1),
    origin=None,
    cause=None,
    confirmation=Confirmation(_run("confirm"), True, EventCounts(442, 442, 0)),
)


def _at(op: str, phase: str = "forward", module: str = "fc", **changes: object) -> Origin:
    key = SiteKey(2, phase, module, op, 0)
    plain = replace(ORIGIN, key=key, caused_by=None, call_site="train.py:40", ulp=None, ulp_runs=())
    return replace(plain, **changes)  # type: ignore[arg-type]


def _diverging(origin: Origin, cause: Cause | None = UNKNOWN, **changes: object) -> Audit:
    audit = replace(DIVERGENT, origin=origin, cause=cause, printed_identical=None)
    return replace(audit, **changes)  # type: ignore[arg-type]


DRAW = _at("aten.native_dropout.default", module="encoder.layers.3.dropout")
SEEDLESS = Cause(
    "unseeded-rng",
    "likely",
    ("the generator was never seeded", "torch's generator differs from step 0 on"),
    ("call torch.manual_seed(…) at the start", "repro_audit.seed_everything(0)"),
)

UNSEEN = (
    Unseen("views", 1204),
    Unseen("empty", 1),
    Unseen("unwritten", 2),
    Unseen("compiled", 3),
    Unseen("cuda-graphs", 1),
    Unseen("loader-workers", 4),
    Unseen("native-threads", 3),
    Unseen("of a later release", 5),
)

AUDITS = {
    "identical-unseen": replace(IDENTICAL, unseen=UNSEEN),
    "divergent": DIVERGENT,
    "divergent-call-site": _diverging(
        _at("aten.add.Tensor", module="", inputs_identical=None),
        events=EventCounts(1, 0, 1),
        printed_identical=False,
    ),
    "divergent-inputs-differed": _diverging(
        _at("aten._softmax.default", inputs_identical=False, output=1, ulp=ULP)
    ),
    "divergent-no-place": _diverging(
        _at("aten.mm.default", call_site=None, output_name="out", spec=None)
    ),
    "divergent-caused-elsewhere": _diverging(
        replace(
            ORIGIN,
            key=replace(KEY, call_index=11, thread="1", module=""),
            caused_by=CausedBy("aten.index.Tensor", "encoder.embedding", None),
            rank=3,
            recompute=True,
        )
    ),
    "divergent-parameter-written": _diverging(
        _at(
            "param:weight",
            key=replace(KEY, phase="weights", module="0", op="param:weight"),
            caused_by=CausedBy("aten.copy_.default", "", "set.py:7"),
        )
    ),
    "divergent-figures": _diverging(
        replace(
            ORIGIN,
            output_name="running_mean",
            ulp=replace(
                ULP, max_ulp=2**63 + 11, unordered=12, nan_payload=1, infinity=2, signed_zero=5000
            ),
            ulp_runs=("run-1", "run-2"),
        )
    ),
    "divergent-integers": _diverging(
        replace(ORIGIN, ulp=replace(ULP, dtype="int64", max_ulp=7, numel=1, differing=1))
    ),
    "divergent-not-in-zoom": _diverging(
        replace(ORIGIN, ulp=replace(ULP, differing=0, max_ulp=0, max_relative=0.0))
    ),
    "divergent-parameter": _diverging(
        _at("param:weight", "optimizer", inputs_identical=None, ulp=ULP)
    ),
    "divergent-batch": _diverging(
        _at("DataLoader.__next__", "data", "", call_site="train.py:30"),
        Cause("data-order", "likely", ("the same 96 values in another order",), ("seed it",)),
    ),
    "divergent-inputs": _diverging(
        _at("inputs:Net", "data", "", output_name="[0]", call_site="train.py:30", ulp=ULP)
    ),
    "divergent-seed": _diverging(
        _at("seed:torch.manual_seed", "rng", "", spec=None, call_site="train.py:3"), SEEDLESS
    ),
    "divergent-long-names": _diverging(
        _at(
            "aten.convolution_backward.default",
            "backward",
            "backbone.stages.2.blocks.17.attention.output.projection.depthwise_convolution_with_it",
            call_site="research/experiments/2026/segmentation/models/backbone_with_long_name.py:1204",
        )
    ),
    "divergent-in-package": _diverging(
        _at(
            "aten.index_put.default",
            "backward",
            call_site="train.py:40",
            caused_by=CausedBy(
                "aten.index.Tensor", "emb", "nets/embedding.py:12", called_from="train.py:31"
            ),
        )
    ),
    "divergent-backward-code": _diverging(
        _at(
            "aten.mul.Tensor",
            "backward",
            call_site="nets/rounding.py:22",
            source="return g * scale",
            caused_by=CausedBy("aten.sign.default", "fc", "nets/rounding.py:17"),
            backward_code=True,
        )
    ),
    "divergent-seed-in-package": _diverging(
        _at(
            "seed:torch.manual_seed",
            "rng",
            "",
            spec=None,
            call_site="transformers/trainer_utils.py:193",
            called_from="train.py:7",
        ),
        SEEDLESS,
    ),
    "structural": _diverging(
        _at("aten.mul.Tensor", kind="structural", other_op="aten.add.Tensor", spec=None)
    ),
    "structural-nothing": _diverging(_at("aten.mul.Tensor", kind="structural", spec=None)),
    "moved": replace(
        DIVERGENT,
        observed=Observed(4, 4, 6, 6),
        sightings=(
            Sighting(ORIGIN, 2),
            *(Sighting(_at("aten.mm.default", module=f"fc{i}"), 1) for i in range(5)),
        ),
    ),
    "warned": replace(
        DIVERGENT,
        warnings=(
            Warn("RA101", "run-2 opened last.pt, which run-1 wrote", "train.py:17"),
            Warn("RA104", "the program changed the default dtype after capture had begun"),
        ),
        manifest_differences=(
            ManifestDifference("threads.torch", {"run-1": 2, "run-2": 4}),
            ManifestDifference("env.OMP_NUM_THREADS", {"run-1": None, "run-2": "4"}),
        ),
    ),
    "identical": IDENTICAL,
    "identical-ten-runs": replace(
        IDENTICAL, observed=Observed(10, 1, 0, 45), confirmation=None, events=EventCounts(1, 1, 0)
    ),
    "identical-forty-runs": replace(IDENTICAL, observed=Observed(40, 1, 0, 780), confirmation=None),
    "identical-only-controlled": replace(
        IDENTICAL,
        confirmation=Confirmation(
            _run("confirm"), False, EventCounts(442, 12, 430), DRAW, SEEDLESS
        ),
    ),
    "identical-self-check": replace(
        IDENTICAL, self_check=SelfCheck(148, ("output", "rng:numpy"), ()), directory="/tmp/0001-x"
    ),
    "self-check-differs": replace(
        IDENTICAL,
        confirmation=None,
        self_check=SelfCheck(148, (), tuple(f"encoder.layers.{i}.weight" for i in range(9))),
    ),
    "divergent-from-modules": replace(
        DIVERGENT,
        passes=(
            Pass("modules", 2, 6.148),
            Pass("interval", 2, 6.803),
            Pass("tensors", 4, 12.0),
            Pass("self-check", 2, 5.0),
        ),
    ),
    "within-tolerance": replace(IDENTICAL, verdict="within-tolerance", confirmation=None),
    "inconclusive": replace(
        IDENTICAL,
        verdict="inconclusive",
        reason="no events were recorded: torch was never imported; is train.py the right program?",
        confirmation=None,
        directory=None,
    ),
    "different-program": replace(
        IDENTICAL,
        command="compare",
        verdict="different-program",
        reason="here.audit is of train.py and there.audit of evaluate.py",
        runs=(RunInfo("here", "here.audit", {}), RunInfo("there", "my there.audit", {})),
        confirmation=None,
        directory=None,
    ),
    "compared": replace(
        DIVERGENT,
        command="compare",
        runs=(RunInfo("here", "here.audit", {}), RunInfo("there", "there.audit", {})),
        directory=None,
        manifest_differences=tuple(
            ManifestDifference(f"env.KNOB_{i}", {"here": i, "there": "x" * 80}) for i in range(12)
        ),
    ),
    "hostile": replace(
        _diverging(
            _at(
                HOSTILE,
                module=HOSTILE,
                call_site=HOSTILE,
                output_name=HOSTILE,
                spec=TensorSpec(HOSTILE, (), HOSTILE),
                caused_by=CausedBy(HOSTILE, HOSTILE, HOSTILE),
            ),
            Cause("unknown", "likely", (HOSTILE,), (HOSTILE,), HOSTILE),
        ),
        target=HOSTILE,
        reason=HOSTILE,
        warnings=(Warn("RA101", HOSTILE, HOSTILE),),
        manifest_differences=(ManifestDifference(HOSTILE, {HOSTILE: HOSTILE}),),
        self_check=SelfCheck(1, (HOSTILE,), (HOSTILE,)),
        directory=f".repro-audit/{HOSTILE}",
    ),
    "infinite": _diverging(
        replace(
            ORIGIN,
            ulp=replace(
                ULP,
                max_absolute=INF,
                max_values=(INF, -INF),
                sum_ulp=2**100,
                histogram=(*(0 for _ in range(64)), 2**60),
            ),
        )
    ),
}


PROVEN = Cause(
    "nondeterministic-op",
    "proven",
    (
        "index_put(accumulate=True) adds in whatever order threads arrive",
        "alone, on the same inputs, it gave 98 results in 100 calls: 50 of 50 pairs differ (93% to "
        "100% of all, with 95% confidence)",
    ),
    ("torch.use_deterministic_algorithms(True)", "torch.set_num_threads(1)"),
    "torch docs",
)
PASSES = (
    Pass("ops", 2, 4.5),
    Pass("tensors", 2, 5.25),
    Pass("experiments", 7, 31.5),
    Pass("cure", 3, 7.125),
)


def tried(
    differs: bool | None, *pins: str, on: str = "program", reason: str | None = None
) -> Experiment:
    said = " and ".join(BY_NAME[name].said for name in pins)
    return Experiment(pins, said, on, 3, differs, reason)


def explained_audits(
    divergent: Audit, identical: Audit, remaining: Origin, ulp: UlpDivergence
) -> dict[str, Audit]:
    """By name, made of a divergent and an identical audit; `remaining` is what a cure leaves."""
    replay = Replay(100, (3, *[1] * 97), 50, 50, 1, 0, ulp, (ulp, ulp))
    alone = Explanation(
        replay,
        (tried(False, "deterministic", on="call"), tried(False, "one-thread", on="call")),
        Cure(("deterministic",), (BY_NAME["deterministic"].remedy,), 2, True, 0.715),
        40.5,
    )
    steady = Replay(100, (100,), 50, 0, 0, 0, None, (), "it draws random numbers")
    together = Explanation(
        steady,
        (
            tried(True, "deterministic"),
            tried(True, "no-aslr"),
            tried(None, "fixed-seeds", reason="it took more than 60 s"),
            tried(True, "one-thread"),
            tried(False, "deterministic", "no-aslr", "one-thread"),
            tried(False, "no-aslr", "one-thread"),
        ),
        Cure(
            ("no-aslr", "one-thread"),
            (BY_NAME["no-aslr"].remedy, BY_NAME["one-thread"].remedy),
            2,
            False,
            None,
            remaining,
        ),
        99.0,
    )
    nothing = Explanation(
        Replay(problem="its arguments take more than 2 GiB"), (tried(True, "no-aslr"),), None, 3.0
    )
    changed = Explanation(
        None,
        (
            Experiment(("hash-seed",), "another hash seed", "program", 1, False),
            Experiment(("memory",), "empty memory filled with a pattern", "program", 1, True),
        ),
        Cure(("memory",), ("use torch.zeros",), 1, True),
        8.0,
    )
    confirmation = identical.confirmation
    assert confirmation is not None
    memory = Cause(
        "uninitialized-memory", "proven", ("filling it makes it differ",), ("use torch.zeros",)
    )
    differs = Confirmation(confirmation.run, False, confirmation.events, remaining, memory)
    chance = replace(
        changed,
        experiments=tuple(replace(one, differs=False) for one in changed.experiments),
        cure=None,
    )
    return {
        "explained": replace(
            divergent,
            cause=PROVEN,
            explanation=alone,
            passes=PASSES,
            reproducer=Reproducer("shown/reproduce.py", True),
        ),
        "explained-together": replace(
            divergent, explanation=together, reproducer=Reproducer("shown/reproduce.py", False)
        ),
        "explained-by-nothing": replace(
            divergent, explanation=nothing, reproducer=Reproducer(None, None, "the disk is full")
        ),
        "explained-confirmation": replace(identical, confirmation=differs, explanation=changed),
        "explained-chance": replace(
            identical,
            confirmation=differs,
            explanation=chance,
            reproducer=Reproducer("shown/reproduce.py", None, "it failed: MemoryError"),
        ),
    }


AUDITS |= recorded_audits(DIVERGENT)
AUDITS |= overview_audits(DIVERGENT, IDENTICAL, HOSTILE)
AUDITS |= matrix_audits(DIVERGENT, HOSTILE)
AUDITS |= resumed_audits(IDENTICAL, DIVERGENT)
AUDITS |= screened_audits(IDENTICAL, DIVERGENT)
AUDITS |= explained_audits(DIVERGENT, IDENTICAL, _at("aten.mm.default"), ULP)


@pytest.fixture(params=sorted(AUDITS))
def named_audit(request: pytest.FixtureRequest) -> tuple[str, Audit]:
    """Each fabricated audit with its name, one a test."""
    return request.param, AUDITS[request.param]


@pytest.fixture
def audits() -> dict[str, Audit]:
    """All fabricated audits by name."""
    return AUDITS
