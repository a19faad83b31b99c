"""Programs of one process: each clean, undisturbed, wholly attributed, and its fault found."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"


@dataclass(frozen=True)
class Case:
    """A program, its words, and what is to be said of it.

    The fault is that of the call numbered `forward` or `backward`, in `module` (in `back` where the
    backward comes to another first); the backward op's cause is `cause`. `leaves` gradients are
    accumulated into tensors of nobody's. `ci` names the tests of CI's fixed sample.
    """

    program: str
    module: str = ""
    back: str | None = None
    forward: str | None = "1"
    backward: str | None = "1"
    cause: str = "zoo.fault.default"
    leaves: int = 0
    options: tuple[str, ...] = ()
    may_warn: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    ci: tuple[str, ...] = ()


CASES = [
    Case("accumulation"),
    Case("amp", module="1"),
    Case("attention"),
    Case("averages"),
    Case("checkpointing not", module="blocks.1", back="blocks.0"),
    Case("checkpointing reentrant", module="blocks.1", back="blocks.0", leaves=6, ci=("clean",)),
    Case("compiled eager", module="1._orig_mod"),
    Case(
        "compiled aot_eager",
        module="1._orig_mod",
        cause="aten.t.default",
        ci=("clean",),
    ),
    Case(
        "compiled inductor",
        module="1._orig_mod",
        cause="aten.addmm.out",
        # Each run compiles, and finds nothing that an earlier one left. Torch starts Python to see
        # whether what the compiler made can be loaded.
        options=("--isolate",),
        may_warn=("RA107",),
        env={"TORCHINDUCTOR_COMPILE_THREADS": "1"},
    ),
    Case("dtypes", module="spectral"),
    Case("encoder", backward=None),
    Case("experts", module="1.experts.1", back="1.experts.2"),
    Case("flex", backward=None),
    Case("functions", module="block", forward="2"),
    Case("gan", module="Critic.0"),
    Case("generate dynamic", forward=None, backward=None),
    Case("generate static", forward=None, backward=None),
    Case("graphs"),
    Case("hooks", module="inner", ci=("forward",)),
    Case("inference", backward=None),
    Case("lbfgs"),
    Case("loaders fork", ci=("clean",)),
    Case("loaders forkserver"),
    Case("loaders spawn"),
    Case("normalized"),
    Case("optimizers AdamW loop"),
    Case("optimizers AdamW foreach"),
    Case("optimizers AdamW fused"),
    Case("optimizers Adam foreach"),
    Case("optimizers Adam fused"),
    Case("optimizers SGD foreach"),
    Case("optimizers SGD fused"),
    Case("parametrized", module="symmetric.parametrizations.weight.0"),
    # The backward of the fault's backward.
    Case("penalty", cause="zoo.fault_back.default", leaves=2),
    Case("recreated"),
    Case("recurrent"),
    Case("resumed"),
    Case("scripted"),
    Case("shared", module="left.mixer"),
    Case("sparse"),
    Case("trainer", forward=None, backward=None),
    Case("transforms", ci=("clean",)),
    Case("views", ci=("backward",)),
]


def of_kind(kind: str) -> list[object]:
    """The cases of one test, those beyond CI's sample marked."""
    wanted = [case for case in CASES if kind == "clean" or getattr(case, kind) is not None]
    return [
        pytest.param(case, id=case.program, marks=() if kind in case.ci else (pytest.mark.whole,))
        for case in wanted
    ]


def line(program: str) -> str:
    """Where a program calls the fault: the one line that does, or the compiled function with it."""
    path = PROGRAMS / f"{program.split(maxsplit=1)[0]}.py"
    wanted = r"def forward" if program.startswith("compiled") else r"\bfault\(|return op\("
    calls = [
        at for at, text in enumerate(path.read_text().splitlines(), 1) if re.search(wanted, text)
    ]
    (at,) = calls
    return f"{path.name}:{at}"


@pytest.mark.parametrize("case", of_kind("clean"))
def test_clean(zoo, case: Case) -> None:
    program, *words = case.program.split()
    result = zoo(program, "--self-check", *case.options, words=tuple(words), **case.env)
    assert result.code == 0, result.stderr
    assert result.report["verdict"] == "identical"
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    assert result.report["self_check"]["compared"] > 1
    assert set(result.warned()) <= set(case.may_warn)
    assert result.unbound() == ["aten.detach.default"] * case.leaves
    if program == "compiled":
        # The self-check has compared it with what an unobserved run printed.
        assert result.printed().endswith("graphs 3 breaks 1\n")


@pytest.mark.parametrize("case", of_kind("forward"))
def test_planted_in_the_forward(zoo, case: Case) -> None:
    program, *words = case.program.split()
    result = zoo(program, fault=True, words=tuple(words), PLANT_CALL=case.forward, **case.env)
    assert result.code == 1, result.stderr
    found = result.report["first_divergence"]
    assert result.named() == ("forward", case.module, "zoo.fault.default")
    assert found["call_site"] == line(case.program)
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1


@pytest.mark.parametrize("case", of_kind("backward"))
def test_planted_in_the_backward(zoo, case: Case) -> None:
    program, *words = case.program.split()
    planted = {"PLANT_PHASE": "backward", "PLANT_CALL": case.backward}
    result = zoo(program, fault=True, words=tuple(words), **planted, **case.env)
    assert result.code == 1, result.stderr
    module = case.module if case.back is None else case.back
    assert result.named() == ("backward", module, "zoo.fault_back.default")
    found = result.report["first_divergence"]
    assert (found["caused_by"]["module"], found["caused_by"]["op"]) == (module, case.cause)
    if "fault_back" not in case.cause:
        assert found["caused_by"]["call_site"] == line(case.program)
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1


@pytest.mark.parametrize(
    ("program", "call", "module"),
    [
        ("checkpointing not", "2", "blocks.1"),
        pytest.param("checkpointing reentrant", "2", "blocks.1", marks=pytest.mark.whole),
        pytest.param("functions", "1", "block", marks=pytest.mark.whole),
    ],
)
def test_planted_in_what_a_backward_computes_again(zoo, program, call, module) -> None:
    name, *words = program.split()
    result = zoo(name, fault=True, words=tuple(words), PLANT_CALL=call)
    assert result.code == 1, result.stderr
    assert result.named() == ("backward", module, "zoo.fault.default")
    found = result.report["first_divergence"]
    assert found["recompute"] is True
    assert found["call_site"] == line(program)
    assert found["ulp"]["differing"] == 1
