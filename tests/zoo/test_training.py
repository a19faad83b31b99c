"""Ways to train: each clean, undisturbed, wholly attributed, and its planted fault found."""

from __future__ import annotations

import pytest

# (program, module that the fault is in); those of CI's fixed sample first.
SAMPLE = [("accumulation", "")]
WHOLE: list[tuple[str, str]] = []
KINDS = [*SAMPLE, *(pytest.param(*kind, marks=pytest.mark.whole) for kind in WHOLE)]


@pytest.mark.parametrize(("program", "module"), KINDS)
def test_clean(zoo, program: str, module: str) -> None:
    result = zoo(program, "--self-check")
    assert result.code == 0, result
    assert result.report["verdict"] == "identical"
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    assert result.warned() == []
    assert result.unbound() == []


@pytest.mark.parametrize(("program", "module"), KINDS)
@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_planted_fault(zoo, program: str, module: str, phase: str) -> None:
    result = zoo(program, fault=True, PLANT_PHASE=phase, PLANT_CALL="1")
    assert result.code == 1, result
    op = "zoo.fault.default" if phase == "forward" else "zoo.fault_back.default"
    assert result.named() == (phase, module, op)
    assert result.report["first_divergence"]["inputs_identical"] is True
    assert result.report["first_divergence"]["ulp"]["differing"] == 1
