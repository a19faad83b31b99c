"""Programs that do not repeat, each in the mode in which it does not, named with its origin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

whole = pytest.mark.whole


def named(origin: dict) -> tuple[str, str, str]:
    """Phase, module and op of an origin."""
    return origin["phase"], origin["module"], origin["op"]


def test_backward_of_indexing(audit) -> None:
    result = audit("examples/flaky_embedding.py", "--self-check")
    origin = result.origin
    assert (result.code, result.report["verdict"]) == (1, "divergent")
    assert named(origin) == ("backward", "emb", "aten.index_put.default")
    assert origin["kind"] == "value"
    assert origin["shape"] == [1000, 64]
    assert origin["call_site"].endswith("flaky_embedding.py:47")
    assert origin["caused_by"]["op"] == "aten.index.Tensor"
    assert origin["caused_by"]["module"] == "emb"
    assert origin["caused_by"]["call_site"].endswith("flaky_embedding.py:24")
    assert origin["source"] == "return self.weight[ids]"
    assert origin["inputs_identical"] is True
    assert origin["ulp"]["from_runs"] == ["zoom-1a", "zoom-1b"]
    assert 0 < origin["ulp"]["differing"] <= origin["ulp"]["numel"] == 64_000
    assert origin["ulp"]["max_relative"] > 0
    assert result.report["cause"]["class"] == "nondeterministic-op"
    assert result.report["cause"]["remedies"] == ["--deterministic"]
    assert result.report["printed_identical"] is True
    overview, events = result.report["overview"], result.report["events"]
    assert sum(site["events"] for site in overview["sites"]) == events["compared"]
    assert sum(map(sum, overview["heat"]["differing"])) == events["divergent"]
    assert overview["sites"][0]["op"] == origin["op"]
    # Two unobserved runs differ as well, in the parameters; in all else observing changed nothing.
    assert result.report["self_check"]["varying"] != []
    assert result.report["self_check"]["differing"] == []


# What errs at every second run goes the same way in CI, below and in `tests/planted`.
@whole
def test_from_modules_to_the_op(audit) -> None:
    result = audit("examples/flaky_embedding.py", "--level", "modules")
    origin = result.origin
    assert named(origin) == ("backward", "emb", "aten.index_put.default")
    assert origin["caused_by"]["call_site"].endswith("flaky_embedding.py:24")
    assert origin["ulp"]["differing"] > 0
    assert result.report["cause"]["class"] == "nondeterministic-op"
    # The whole of the program at the level of its modules, the rest to its first step alone.
    assert result.report["events"]["compared"] < 40


@pytest.mark.parametrize("level", ["ops", pytest.param("modules", marks=whole)])
def test_uninitialised_memory(audit, level: str) -> None:
    result = audit("tests/programs/uninitialised.py", "--level", level)
    assert result.code == 1
    # Which of the two steps differs first depends on what the memory happens to hold.
    assert named(result.origin) == ("forward", "mix", "aten.nan_to_num.default")
    assert result.origin["call_site"].endswith("uninitialised.py:14")
    assert result.report["cause"]["class"] == "uninitialized-memory"


def test_set_of_parameters(audit) -> None:
    result = audit("tests/programs/set_of_parameters.py")
    assert result.code == 1
    assert result.origin["call_site"].endswith("set_of_parameters.py:17")
    assert named(result.origin) == ("forward", "", "aten.pow.Tensor_Scalar")
    assert result.report["cause"]["class"] == "data-order"


def test_set_of_modules(audit) -> None:
    """No module is called when they are written: what they then hold tells which op wrote it."""
    result = audit("tests/programs/set_of_modules.py")
    assert result.code == 1
    phase, module, op = named(result.origin)
    assert (phase, op) == ("weights", "param:weight")
    assert module.isdigit()
    written = result.origin["caused_by"]
    assert written["op"] == "aten.copy_.default"
    assert written["call_site"].endswith("set_of_modules.py:11")
    assert result.report["cause"]["class"] == "data-order"


@pytest.mark.parametrize(
    ("program", "line", "op", "cause"),
    [
        ("unseeded_generator", 8, "seed:numpy.random.default_rng", "unseeded-rng"),
        ("unseeded_torch", 13, "aten.randperm.generator", "unseeded-rng"),
    ],
)
def test_unseeded_generator(audit, program: str, line: int, op: str, cause: str) -> None:
    result = audit(f"tests/programs/{program}.py")
    assert result.code == 1
    assert (result.origin["op"], result.origin["step"]) == (op, 0)
    assert result.origin["call_site"].endswith(f"{program}.py:{line}")
    assert result.report["cause"]["class"] == cause


@whole
def test_a_draw_too_many_in_lockstep(audit) -> None:
    """The runs end where they came apart, before a state shows that a generator was drawn from."""
    result = audit("tests/programs/draw_too_many.py", "--lockstep")
    assert (result.origin["op"], result.origin["call_site"]) == (
        "draw:random.random",
        "draw_too_many.py:21",
    )
    assert result.report["cause"]["class"] == "rng-drift"


HELD_BY_CONTROL = [
    ("set_of_strings", 9, "data", "aten.lift_fresh.default", "data-order"),
    ("hash_seed", 6, "rng", "seed:torch.manual_seed", "unseeded-rng"),
    ("listing", 16, "data", "aten.lift_fresh.default", "data-order"),
    ("uninitialised_large", 12, "forward", "aten.add_.Tensor", "uninitialized-memory"),
]


def test_what_repeats_only_under_control_from_modules(audit) -> None:
    result = audit("tests/programs/uninitialised_large.py", "--level", "modules")
    assert (result.code, result.report["verdict"]) == (0, "identical")
    origin = result.report["confirmation"]["first_divergence"]
    assert (origin["phase"], origin["op"]) == ("forward", "aten.add_.Tensor")
    assert result.report["confirmation"]["cause"]["class"] == "uninitialized-memory"


# Each program in one of the two modes in CI.
@pytest.mark.parametrize(
    ("program", "line", "phase", "op", "cause"),
    [pytest.param(*HELD_BY_CONTROL[0], marks=whole), *HELD_BY_CONTROL[1:]],
)
def test_what_repeats_only_under_control(
    audit, program: str, line: int, phase: str, op: str, cause: str
) -> None:
    result = audit(f"tests/programs/{program}.py")
    assert (result.code, result.report["verdict"]) == (0, "identical")
    confirmation = result.report["confirmation"]
    assert not confirmation["holds"]
    origin = confirmation["first_divergence"]
    assert (origin["step"], origin["phase"], origin["op"]) == (0, phase, op)
    assert origin["call_site"].endswith(f"{program}.py:{line}")
    assert confirmation["cause"]["class"] == cause


@pytest.mark.parametrize(
    ("program", "line", "phase", "op", "cause"),
    [HELD_BY_CONTROL[0], pytest.param(*HELD_BY_CONTROL[1], marks=whole)],
)
def test_what_diverges_as_is(
    audit, program: str, line: int, phase: str, op: str, cause: str
) -> None:
    result = audit(f"tests/programs/{program}.py", "--as-is")
    assert result.code == 1
    assert (result.origin["step"], result.origin["phase"]) == (0, phase)
    assert result.origin["op"] == op
    assert result.origin["call_site"].endswith(f"{program}.py:{line}")
    assert result.report["cause"]["class"] == cause
    if program == "set_of_strings":
        assert result.report["cause"]["evidence"] == ["the same 40 rows, in another order"]


FORWARD = ("forward", "blocks.2.fragile", "planted.pass_through.default", 69)
BACKWARD = ("backward", "blocks.2.fragile", "planted.pass_back.default", None)
OPTIMIZER = ("optimizer", "blocks.2.inner", "planted.apply.default", 94)
# Each phase, each level, one element and several: `tests/planted` has them in every combination.
SAMPLE = [(*FORWARD, "ops", 2), (*BACKWARD, "modules", 1), (*OPTIMIZER, "ops", 1)]
OTHERS = [
    (*FORWARD, "ops", 1),
    (*FORWARD, "modules", 1),
    (*BACKWARD, "ops", 1),
    (*BACKWARD, "ops", 2),
    (*OPTIMIZER, "ops", 2),
    (*OPTIMIZER, "modules", 1),
]


@pytest.mark.parametrize(
    ("phase", "module", "op", "line", "level", "elements"),
    [*SAMPLE, *(pytest.param(*case, marks=whole) for case in OTHERS)],
)
def test_planted_fault(
    audit,
    tmp_path,
    phase: str,
    module: str,
    op: str,
    line: int | None,
    level: str,
    elements: int,
) -> None:
    result = audit(
        "tests/programs/planted.py",
        "--level",
        level,
        PLANT_COUNTER=str(tmp_path / "count"),
        PLANT_PHASE=phase,
        PLANT_STEP="1",
        PLANT_ELEMENTS=str(elements),
    )
    origin = result.origin
    assert result.code == 1
    assert (origin["step"], *named(origin), origin["call_index"]) == (1, phase, module, op, 0)
    assert origin["inputs_identical"] is True
    assert (origin["ulp"]["differing"], origin["ulp"]["max_ulp"]) == (elements, 1)
    if line is not None:
        assert origin["call_site"].endswith(f"planted.py:{line}")
    if phase == "backward":
        assert origin["caused_by"]["op"] == "planted.pass_through.default"
        assert origin["caused_by"]["call_site"].endswith("planted.py:69")
    passes = [(each["name"], each["runs"]) for each in result.report["passes"]]
    if level == "modules":
        # The pair that shows the op is in lock-step, and keeps its tensors.
        assert passes == [("modules", 2), ("interval", 2)]
    else:
        assert passes[0] == ("ops", 2)
        assert passes[1:] == [("optimizer" if phase == "optimizer" else "tensors", 2)]


def test_a_divergence_stands_where_looking_closer_fails(audit, tmp_path) -> None:
    result = audit(
        "tests/programs/planted.py",
        PLANT_COUNTER=str(tmp_path / "count"),
        PLANT_PHASE="forward",
        PLANT_STEP="1",
        PLANT_ELEMENTS="1",
        PLANT_ENDS_AT="2",
    )
    assert (result.code, result.report["verdict"]) == (1, "divergent")
    assert named(result.origin)[1:] == ("blocks.2.fragile", "planted.pass_through.default")
    assert result.origin["ulp"] is None
    assert "RA105" in [warning["code"] for warning in result.report["warnings"]]


def test_a_write_behind_torchs_back_shows_at_the_end(audit) -> None:
    result = audit("tests/programs/written_outside.py")
    assert result.code == 1
    assert named(result.origin) == ("weights", "1", "param:bias")


def test_a_state_that_no_parameter_shows_is_opened_up_to_the_op_that_took_it_on(audit) -> None:
    result = audit("tests/programs/gradient_outside.py")
    assert result.code == 1
    assert named(result.origin) == ("optimizer", "2", "aten.lerp_.Scalar")
    assert result.origin["inputs_identical"] is False
    assert (result.origin["step"], result.report["cause"]["class"]) == (0, "unknown")


@pytest.mark.parametrize("level", ["ops", "modules"])
def test_a_state_that_no_op_wrote_is_named_by_itself(audit, level) -> None:
    result = audit("tests/programs/state_outside.py", "--level", level)
    assert result.code == 1
    assert named(result.origin) == ("optimizer", "", "state:Counting")
    assert (result.origin["step"], result.origin["output_name"]) == (0, "Linear.weight.count")
    assert result.origin["ulp"]["differing"] == 1
    assert "written outside torch" in result.report["cause"]["remedies"][0]


def test_another_number_is_another_input(audit) -> None:
    result = audit("tests/programs/another_number.py")
    assert result.code == 1
    assert named(result.origin) == ("forward", "", "aten.mul.Tensor")
    assert result.origin["inputs_identical"] is False
    assert result.report["cause"]["class"] == "unknown"
    (evidence,) = result.report["cause"]["evidence"]
    assert re.fullmatch(r"argument 2 is \d+\.0 in zoom-1a and \d+\.0 in zoom-1b", evidence)


@pytest.mark.parametrize("lockstep", [(), ("--lockstep",)])
def test_a_generator_given_to_an_op_in_a_program_of_wrapped_tensors(audit, lockstep) -> None:
    result = audit("tests/programs/differentiated.py", *lockstep)
    assert (result.code, result.origin["step"]) == (1, 0)
    assert named(result.origin) == ("forward", "", "aten.normal_.default")
    assert result.origin["call_site"].endswith("differentiated.py:20")
    assert result.report["cause"]["class"] == "unseeded-rng"
    assert "torch.Generator" in result.report["cause"]["evidence"][0]
    assert result.report["warnings"] == []


def test_a_package_s_line_and_the_one_that_called_it(audit, tmp_path: Path) -> None:
    package = tmp_path / "site-packages/noise.py"
    package.parent.mkdir()
    package.write_text("import os\ndef add(x):\n    return x + os.urandom(8)[0] + os.getpid()\n")
    (tmp_path / "train.py").write_text("import noise, torch\nnoise.add(torch.ones(3))\n")
    result = audit(tmp_path / "train.py", PYTHONPATH=str(package.parent))
    assert result.origin["op"] == "aten.add.Tensor"
    assert (result.origin["call_site"], result.origin["called_from"]) == (
        "noise.py:3",
        "train.py:2",
    )
