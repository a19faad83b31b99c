"""Fabricated audits of resumed runs."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.model import Audit, Cause, EventCounts, Observed, Restored, Resumption

STATE = (
    Restored("weights", "", 148, 0),
    Restored("data", "", 2, 0),
    Restored("generator", "torch", 1, 1, ("torch",)),
    Restored("generator", "python", 1, 1, ("python",), used=False),
    Restored("generator", "numpy", 1, 0, used=False),
    Restored("optimizer", "AdamW", 297, 297, ("tensors=0, not 296",)),
    Restored("options", "AdamW", 12, 1, ("group0.lr=0.01, not 0.0025",)),
)
RESUMPTION = Resumption(500, 510, 1000, 500, 500, ("out/checkpoint-500/model.pt",), STATE)


def resumed_audits(identical: Audit, divergent: Audit) -> dict[str, Audit]:
    """Each by its name, made of one of two runs that agree and one of two that do not."""
    same = tuple(replace(item, differing=0, names=()) for item in STATE)
    resumed = replace(
        divergent,
        command="resume",
        printed_identical=None,
        observed=Observed(2, 2, 1, 1),
        cause=Cause(
            "unrestored-state",
            "likely",
            ("torch's generator is not in the state that the straight run had", "AdamW keeps"),
            ("save torch.get_rng_state(), and give it to torch.set_rng_state()",),
        ),
        resumption=RESUMPTION,
    )
    return {
        "resumed-otherwise": resumed,
        "resumed-by-ranks": replace(
            resumed,
            resumption=replace(
                RESUMPTION,
                read=("out/0.distcp", "out/1.distcp", "out/.metadata"),
                state=(Restored("generator", "torch.cuda:0", 256, 252, ("rank 1", "rank 2")),),
            ),
        ),
        "resumed-further": replace(
            resumed, resumption=replace(RESUMPTION, resumed=1000, read=("a/x.pt", "b/y.pt"))
        ),
        "resumed": replace(
            identical,
            command="resume",
            confirmation=None,
            printed_identical=None,
            events=EventCounts(5527, 5527, 0),
            resumption=replace(RESUMPTION, read=(), state=same),
        ),
        "resumed-inconclusive": replace(
            resumed,
            verdict="inconclusive",
            cause=None,
            resumption=None,
            reason="the first part already differs from the straight run, so nothing is said of "
            "resuming; `repro-audit run train.py` says why the program does not repeat itself",
        ),
    }
