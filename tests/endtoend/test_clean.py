"""Programs that repeat: no divergent event, no difference as-is, no trace of the observer."""

from __future__ import annotations

import pytest

# Networks of these kinds are audited clean by `tests/planted`, undisturbed by `tests/zoo`.
whole = pytest.mark.whole


@pytest.mark.parametrize(
    ("program", "steps"),
    [
        ("examples/tiny_gpt.py", 3),
        pytest.param("examples/convnet.py", 4, marks=whole),
        pytest.param("examples/lstm.py", 3, marks=whole),
        pytest.param("examples/gpt2_config.py", 3, marks=whole),
    ],
)
def test_identical_and_undisturbed(audit, program: str, steps: int) -> None:
    result = audit(program, "--self-check")
    assert result.code == 0
    assert result.report["verdict"] == "identical"
    assert result.report["events"]["divergent"] == 0
    assert result.report["events"]["compared"] > 100
    assert result.report["runs"][0]["manifest"]["steps"] == steps
    assert result.report["first_divergence"] is None
    assert result.report["manifest_differences"] == []
    assert result.report["warnings"] == []
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    # Parameters, buffers, three generators and what was printed.
    assert result.report["self_check"]["compared"] > 10


@pytest.mark.parametrize(
    "program", ["examples/gpt2_config.py", pytest.param("examples/lstm.py", marks=whole)]
)
def test_modules_are_identical_and_undisturbed(audit, program: str) -> None:
    result = audit(program, "--level", "modules", "--self-check")
    assert (result.code, result.report["verdict"]) == (0, "identical")
    assert result.report["events"]["divergent"] == 0
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    assert result.report["warnings"] == []
    names = [each["name"] for each in result.report["passes"]]
    assert names == ["modules", "confirm", "self-check"]


def test_class_with_inputs(audit) -> None:
    result = audit(
        "tests/programs/bare_class.py:Tower", "--input", "float32[4,3,16,16]", "--steps", "2"
    )
    assert (result.code, result.report["verdict"]) == (0, "identical")
    assert result.report["runs"][0]["manifest"]["steps"] == 2


@whole
def test_divergent_example_is_not_disturbed_either(audit) -> None:
    result = audit("examples/flaky_embedding.py", "--deterministic", "--self-check")
    assert (result.code, result.report["verdict"]) == (0, "identical")
    assert result.report["self_check"]["differing"] == []
    settings = result.report["runs"][0]["manifest"]["torch"]
    assert settings["are_deterministic_algorithms_enabled"] is True
