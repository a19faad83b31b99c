"""Fabricated audits of devices that were screened."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.model import Audit, Cause, EventCounts, Observed, Screened, Screening, Standing

COUNTS = EventCounts(786, 740, 46)
HARDWARE = "NVIDIA H200"


def screened_audits(identical: Audit, divergent: Audit) -> dict[str, Audit]:
    """Each by its name, made of one of two runs that agree and one of two that do not."""

    def device(number: int, standing: Standing = "agrees", **changes: object) -> Screened:
        name = f"cuda:{number}"
        runs = tuple(f"cuda-{number}-{n}" for n in (1, 2, 3))
        found = Screened(name, HARDWARE, 0, runs, standing)
        if standing not in {"agrees", "failed", "single"}:
            found = replace(found, events=COUNTS, origin=divergent.origin)
        return replace(found, **changes)  # type: ignore[arg-type]

    def of(*devices: Screened, **changes: object) -> Audit:
        base = replace(
            divergent,
            command="screen",
            target="-m repro_audit.workload",
            printed_identical=None,
            observed=Observed(3 * len(devices), 2, 30, 276),
            cause=Cause(
                "suspected-hardware",
                "likely",
                ("cuda:3 gives another result in all of 3 runs; the 7 others agree",),
                ("screen all of them again, and longer: --rounds 12",),
            ),
            screening=Screening(devices, 3),
        )
        return replace(base, **changes)  # type: ignore[arg-type]

    good = [device(n) for n in range(8)]
    unknown = Cause("unknown", "likely", ("one more device would tell",), ("record it elsewhere",))
    same = {
        "verdict": "identical",
        "origin": None,
        "cause": None,
        "events": EventCounts(18078, 18078, 0),
        "observed": Observed(24, 1, 0, 276),
    }
    return {
        "screened": of(*good, **same),
        "screened-two-kinds": of(
            *good[:7], replace(device(7), hardware="NVIDIA A100", kind=1), **same
        ),
        "screened-differs": of(*good[:3], device(3, "differs", differing=3), *good[4:]),
        "screened-varies": of(
            *good[:2], device(2, "varies", differing=1), device(3, "failed", reason="killed")
        ),
        "screened-fails": of(
            good[0],
            good[1],
            device(2, "failed", runs=(), hardware="", reason="an illegal memory access"),
            origin=None,
        ),
        "screened-disputed": of(device(0, "disputed"), device(1, "disputed"), cause=unknown),
        "screened-alone": of(device(0, "varies"), cause=unknown),
        "screened-single": of(
            replace(device(0), standing="single"),
            **{**same, "verdict": "inconclusive", "reason": "there is nothing to compare with"},
        ),
    }
