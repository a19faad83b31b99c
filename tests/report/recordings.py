"""Fabricated audits of recordings that were compared: drift, another start, own errors."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.model import (
    Amplification,
    Audit,
    Deviation,
    Drift,
    EventCounts,
    Gap,
    OwnError,
    OwnErrors,
    Pass,
    RunInfo,
    SiteKey,
    Start,
    StepDrift,
    TensorSpec,
    Tolerance,
)


def _deviation(rms: float, ulp: int = 4, **changes: object) -> Deviation:
    found = Deviation(196_608, 512, 340, 0, ulp, 1.25, 4 * rms, rms, 0.02)
    return replace(found, **changes)  # type: ignore[arg-type]


def _gap(module: str, op: str, rms: float, *, step: int = 0, phase: str = "forward") -> Gap:
    return Gap(
        key=SiteKey(step, phase, module, op, 0),
        event=int(rms * 1e9),
        output=0,
        output_name="",
        spec=TensorSpec("float32", (1, 256, 768), "cpu"),
        call_site="modeling_gpt2.py:310",
        deviation=_deviation(rms),
        length=768,
        expected=9.2e-6,
        beyond=rms > 9.2e-6,
    )


LAYERS = tuple(
    _gap(f"transformer.h.{n}.mlp", "aten.addmm.default", 1e-7 * (n + 1) ** 2) for n in range(12)
)
DRIFT = Drift(
    runs=("a100.audit", "h100.audit"),
    differing=3120,
    measured=3118,
    sampled=512,
    beyond=0,
    tolerance=Tolerance(),
    first=None,
    first_beyond=None,
    largest=LAYERS[-1],
    amplification=Amplification(LAYERS[0], LAYERS[1], 4.0),
    bias=0.02,
    layers=LAYERS,
    steps=(
        StepDrift(0, (10.93751, 10.93751), 1.4e-5, 2e-6),
        StepDrift(1, (10.52, 10.520001), 1.6e-5, 4e-6),
    ),
)
PAST = _gap("transformer.h.7.attn.c_attn", "aten.addmm.default", 3.2e-3)
OWN = OwnError(
    gap=_gap("transformer.h.0.ln_1", "aten.native_layer_norm.default", 1.1e-7),
    own=_deviation(1.1e-7),
    here=_deviation(6e-8),
    there=_deviation(1e-7),
    total=_deviation(3.1e-7),
)
BARE = OwnError(
    gap=_gap("transformer.wte", "param:weight", 5e-8, step=1, phase="weights"),
    own=_deviation(5e-8),
    here=None,
    there=None,
    total=None,
)


def recorded_audits(divergent: Audit) -> dict[str, Audit]:
    """Each by its name, made of one that says where two runs diverge."""
    compared = replace(
        divergent,
        command="compare",
        runs=(
            RunInfo("a100.audit", "a100.audit", {}),
            RunInfo("h100.audit", "h100.audit", {}),
        ),
        directory=None,
        cause=None,
        printed_identical=None,
        start=Start((148, 0), (2, 0), (0, 0)),
        drift=DRIFT,
    )
    own = OwnErrors(3608, 870, 1, 4, {"here": 400, "there": 380, "neither": 90}, OWN, None, (OWN,))
    return {
        "drifted": compared,
        "drifted-past-rounding": replace(
            compared, drift=replace(DRIFT, beyond=12, first_beyond=PAST, largest=PAST, bias=-0.4)
        ),
        "drifted-past-ulp": replace(
            compared,
            drift=replace(
                DRIFT, beyond=12, first_beyond=PAST, tolerance=Tolerance(ulp=4), layers=LAYERS[:1]
            ),
        ),
        "drifted-from-the-origin": replace(
            compared,
            origin=replace(divergent.origin, key=PAST.key, caused_by=None, ulp=None, ulp_runs=()),
            drift=replace(DRIFT, first=PAST),
        ),
        "drifted-within": replace(
            compared, verdict="within-tolerance", drift=replace(DRIFT, tolerance=Tolerance(ulp=9))
        ),
        "drifted-to-not-a-number": replace(
            compared,
            drift=replace(
                DRIFT,
                largest=replace(PAST, deviation=_deviation(0.0, unordered=7)),
                amplification=None,
                steps=(),
            ),
        ),
        "drifted-modules": replace(
            compared, drift=replace(DRIFT, largest=replace(PAST, expected=None, beyond=False))
        ),
        "drifted-unmeasured": replace(
            compared, drift=replace(DRIFT, measured=0, largest=None, layers=(), steps=())
        ),
        "started-apart": replace(
            compared,
            origin=None,
            reason="the runs did not start equal",
            events=EventCounts(400, 20, 380, 3, 57),
            start=Start((148, 33), (2, 1), (90, 57)),
        ),
        "verified-apart": replace(
            compared,
            command="verify",
            origin=None,
            reason="the runs did not start equal",
            directory=".repro-audit/0007-train",
            start=Start((148, 33), (2, 0), (90, 57)),
        ),
        "own-errors": replace(
            compared,
            command="verify",
            directory=".repro-audit/0007-train",
            own=replace(own, errors=(OWN, BARE)),
            passes=(Pass("verify", 1, 12.0), Pass("own", 1, 31.0)),
        ),
        "own-errors-beyond": replace(compared, own=replace(own, first_beyond=BARE, nearer={})),
        "own-errors-of-nothing": replace(compared, own=OwnErrors(0, 0, 0, 90, {}, None, None, ())),
    }
