"""Recordings of which one ends before the others: what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAIN = """
import sys, torch, repro_audit
from torch import nn

out, factor, *ends = sys.argv[1:]
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with repro_audit.record(out, model=net, optimizer=optimizer) as recording:
    for step in range(4):
        loss = net(torch.randn(3, 4)).square().mean() * float(factor if step == 3 else 1)
        if "within" in ends and step == 2:
            raise ValueError("out of data")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recording.step()
        if "after" in ends and step == 1:
            raise ValueError("out of data")
        if "interrupted" in ends and step == 1:
            raise KeyboardInterrupt
"""

ALONE = """
import sys, torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(int(sys.argv[1])):
    optimizer.zero_grad()
    net(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()
"""

Compared = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def compared(audit, plainly, program) -> Compared:
    program("train.py", TRAIN)

    def compare(*runs: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
        for words in runs:
            if not Path(words[0]).exists():
                plainly("train.py", *words)
        found = audit("compare", *(words[0] for words in runs), "--format", "json")
        assert found.stdout, found.stderr
        return found.code, json.loads(found.stdout)

    return compare


WHOLE = ("whole.audit", "1")


@pytest.mark.parametrize(
    ("ends", "where"),
    [
        ("after", "ends after step 1 (ValueError: out of data)"),
        ("within", "ends in step 2 (ValueError: out of data)"),
        ("interrupted", "ends after step 1 (KeyboardInterrupt)"),
    ],
)
def test_what_came_before_an_exception_agrees(compared: Compared, ends: str, where: str) -> None:
    short = ("short.audit", "1", ends)
    for pair in ((WHOLE, short), (short, WHOLE)):
        code, report = compared(*pair)
        assert (code, report["verdict"]) == (4, "inconclusive")
        assert report["reason"].startswith(f"short.audit {where}: all ")
        assert "until there agree" in report["reason"]
        assert report["events"]["divergent"] == 0 < report["events"]["compared"]
        assert report["first_divergence"] is report["cause"] is report["drift"] is None
        assert [warning["code"] for warning in report["warnings"]] == ["RA108"]
    # Two that ended alike agree in all that they have.
    code, report = compared(short, short)
    assert (code, report["verdict"]) == (0, "identical")


def test_of_three_the_two_that_go_on_are_told_apart(compared: Compared) -> None:
    short, other = ("short.audit", "1", "after"), ("other.audit", "2")
    code, report = compared(short, WHOLE, other)
    assert (code, report["verdict"]) == (1, "divergent")
    assert report["first_divergence"]["step"] == 3
    assert report["drift"]["runs"] == ["whole.audit", "other.audit"]


def test_a_difference_before_the_end_is_one(compared: Compared, program) -> None:
    code, report = compared(WHOLE, ("short.audit", "1", "after"))
    before = report["events"]["compared"]
    program("train.py", TRAIN.replace("* float", "* 1.5 * float"))
    code, report = compared(WHOLE, ("differs.audit", "1", "after"))
    assert (code, report["verdict"]) == (1, "divergent")
    assert report["first_divergence"]["step"] == 0
    assert report["events"]["compared"] <= before + 6
    # Weights of one step are never held against those of another.
    assert {step["step"] for step in report["drift"]["steps"]} == {0, 1}


def test_steps_that_were_asked_for(audit, program) -> None:
    program("alone.py", ALONE)
    two = ("--steps", "2")
    for name, *words in (("full.audit",), ("two.audit", *two), ("again.audit", *two)):
        assert audit("record", "alone.py", "-o", name, *words, "--", "4").code == 0
    result = audit("compare", "full.audit", "two.audit")
    assert result.code == 4
    first = " ".join(result.stdout.split())
    assert first.startswith("INCONCLUSIVE two.audit ends after step 1 (--steps 2): all ")
    assert "drift" not in result.stdout
    result = audit("compare", "two.audit", "again.audit")
    assert (result.code, "RA108" in result.stdout) == (0, False)


def test_programs_that_end_by_themselves_after_other_steps(audit, program) -> None:
    program("alone.py", ALONE)
    for steps in "24":
        assert audit("record", "alone.py", "-o", f"{steps}.audit", "--", steps).code == 0
    found = json.loads(audit("compare", "2.audit", "4.audit", "--format", "json").stdout)
    assert found["verdict"] == "divergent"
    assert found["first_divergence"]["kind"] == "structural"
    assert found["drift"] is None


def test_what_is_tolerated_until_the_end_is_no_answer_for_the_rest(audit, program) -> None:
    program("alone.py", ALONE)
    assert audit("record", "alone.py", "-o", "two.audit", "--steps", "2", "--", "4").code == 0
    program("alone.py", ALONE.replace("lr=0.1", "lr=0.1000001"))
    assert audit("record", "alone.py", "-o", "full.audit", "--", "4").code == 0
    result = audit("compare", "full.audit", "two.audit", "--ulp-tol", "1000000")
    assert result.code == 4
    said = " ".join(result.stdout.split())
    assert "two.audit ends after step 1 (--steps 2): until there all is within" in said


def test_nothing_before_the_end(compared: Compared, plainly, program) -> None:
    plainly("train.py", *WHOLE)
    at_once = "    raise ValueError('at once')\n    for step"
    program("train.py", TRAIN.replace("    for step", at_once))
    code, report = compared(WHOLE, ("short.audit", "1"))
    assert (code, report["verdict"]) == (4, "inconclusive")
    assert report["reason"].startswith("short.audit ends in step 0 (ValueError: at once)")
