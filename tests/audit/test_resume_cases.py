"""Programs that resume in their own way: none is accused that restores all, none gets away."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from . import resume_programs as programs
from . import resume_training as training


@dataclass(frozen=True)
class Case:
    """A program, with what it is told, and what is to be said of it."""

    name: str
    program: str
    at: int = 4
    words: tuple[str, ...] = ()
    step: int | None = None
    verdict: str = "identical"
    op: str = ""
    said: str = ""
    more: bool = False
    state: dict[str, int] = field(default_factory=dict)


FORGET = ("--", "forget")
CASES = (
    Case("a closure", programs.CLOSURE.format(optimizer="Adam")),
    Case("lbfgs", programs.CLOSURE.format(optimizer="LBFGS")),
    Case("a cache that fills later", programs.CACHE, at=5, more=True),
    Case("a table that grows", programs.TABLE, at=5, more=True),
    Case("what is made at first use", programs.LAZY, more=True),
    Case(
        "a weight beside what is made at first use",
        programs.LAZY,
        words=FORGET,
        verdict="divergent",
        op="param:bias",
        said="1 of 3 weights are not the straight run's: Linear.bias",
        more=True,
    ),
    Case("a gan", programs.GAN.replace("CRITIC", "1"), at=5, step=4),
    Case(
        "the larger of two models",
        programs.GAN.replace("CRITIC", "1"),
        at=5,
        step=4,
        words=FORGET,
        verdict="divergent",
        op="param:weight",
        # The last bias of a critic has no gradient: what it begins with is what it ends with.
        said="3 of 6 weights are not the straight run's",
        state={"weights": 3},
    ),
    Case("saved between a critic's steps", programs.GAN.replace("CRITIC", "3"), at=2),
    Case("saved within an accumulation", programs.ACCUMULATION, at=5),
    Case("no module, and an older checkpoint", programs.FUNCTIONAL, at=5, step=4),
    Case("an optimizer that never steps", programs.IDLE, at=13, step=13),
    Case("roots in another order", programs.ROOTS),
    Case("a loader's seed of which nothing comes", programs.SEED, at=5, step=4),
    Case(
        "an average beside a loader's seed",
        programs.SEED,
        at=5,
        step=4,
        words=FORGET,
        verdict="divergent",
        op="aten.sub.Tensor",
        said="the straight run has there what aten.lerp_.Scalar gave",
    ),
    Case("a hidden state", programs.HIDDEN),
    Case(
        "a hidden state that is forgotten",
        programs.HIDDEN,
        words=FORGET,
        verdict="divergent",
        op="inputs:LSTM",
        said="the straight run has there what aten.",
    ),
    Case(
        "it ends early",
        programs.EARLY,
        words=("--steps", "8"),
        verdict="divergent",
        said="it goes on to step 5, the straight run to step 8",
    ),
    Case(
        "its first update is left out", programs.SKIPS, verdict="divergent", op="aten.lerp_.Scalar"
    ),
    Case(
        "a generator that nothing depends on", programs.RANDOM_NAMES, at=5, state={"generator": 1}
    ),
    Case(
        "an average beside such a generator",
        programs.RANDOM_NAMES,
        at=5,
        words=FORGET,
        verdict="divergent",
        op="aten.sub.Tensor",
        said="the straight run has there what aten.lerp_.Scalar gave",
    ),
    Case("options of other types", programs.OPTIONS),
    Case("batches are skipped, and one is fetched ahead", programs.AHEAD, at=5),
    Case("two models in turns", programs.TURNS),
    Case("weights that do not change yet", programs.WARM, at=3, step=2),
    Case(
        "a generator of its own",
        programs.OWN,
        verdict="divergent",
        op="aten.randn.generator",
        said="it draws from a generator of the program's own, in another state",
    ),
    Case("a socket is left", programs.SOCKET),
    Case("scaled gradients", training.SCALED, more=True),
    Case(
        "scaled gradients, and the scale is lost",
        training.SCALED,
        words=FORGET,
        verdict="divergent",
        op="aten._amp_update_scale_.default",
        said="gradients are scaled otherwise",
    ),
    Case("gradients are added up", training.ADDED_UP, at=2),
    Case(
        "gradients are added up, and saved in between",
        training.ADDED_UP,
        at=2,
        words=FORGET,
        verdict="divergent",
        op="aten.randn.generator",
        said="it goes on within step 2, with the last 1 of 3 inputs",
    ),
    Case("a sampler's epochs", training.EPOCHS),
    Case(
        "a sampler's epochs begin again",
        training.EPOCHS,
        words=FORGET,
        verdict="divergent",
        op="aten.randperm.generator",
        said="it takes other data in this step",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_program(audit, tmp_path: Path, case: Case) -> None:
    (tmp_path / "train.py").write_text(programs.HEAD + textwrap.dedent(case.program))
    found = audit("resume", "train.py", "--at", str(case.at), "--format", "json", *case.words)
    assert found.stdout, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    origin, resumption = report["first_divergence"], report["resumption"]
    assert report["verdict"] == case.verdict, (report["reason"], origin, report["cause"])
    assert found.code == (0 if case.verdict == "identical" else 1)
    if case.step is not None:
        assert resumption["step"] == case.step
    assert bool(resumption["more"]) == case.more
    if case.op:
        assert origin["op"] == case.op
    if case.said:
        assert report["cause"]["evidence"][0].startswith(case.said)
    differing = {
        item["what"]: item["differing"] for item in resumption["state"] if item["differing"]
    }
    if case.state:
        assert differing == case.state
