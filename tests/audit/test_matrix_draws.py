"""The matrix: draws that are given or are not, what is no evidence, and what is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_audit.audit.session import Finished, Session
from repro_audit.errors import InterruptedRunError
from repro_audit.model import Level
from repro_audit.replicate.machine import machine

from .test_matrix import MIXING, cells, changes

pytestmark = pytest.mark.timeout(900)
whole = pytest.mark.whole

DROPPING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

def build_model():
    return Net()

def build_inputs():
    return torch.ones(8, 16)
"""


def test_rows_draw_the_same_numbers_in_any_batch(matrix) -> None:
    # Left to the generator, the second layer's numbers go by how many the first has drawn.
    audit = matrix(DROPPING, "batch=4,8")
    assert changes(audit) == {"batch": False}
    events = cells(audit)["batch=8"].events
    assert events is not None
    assert events.identical >= 5


# Dropout where the batch lies inside the positions, and once more.
TURNED = DROPPING.replace(
    "self.second(torch.tanh(self.first(x)))",
    "self.second(self.first(x.view(-1, 4, 4).transpose(0, 1).reshape(-1, 4) * 2.0) + 1.0)",
).replace("ones(8, 16)", "randn(8, 16)")


@whole
@pytest.mark.parametrize("level", ["ops", "modules"])
def test_rows_within_another_dimension_draw_the_same_numbers(matrix, level: Level) -> None:
    audit = matrix(TURNED, "batch=4,8", level=level)
    assert (audit.verdict, changes(audit)) == ("identical", {"batch": False})
    assert audit.directory is not None
    assert not list(Path(audit.directory).glob("rows-*.sqlite*"))


@whole
def test_draws_that_nothing_holds_are_not_the_axis(matrix) -> None:
    if machine().capability not in {"avx2", "avx512"}:
        pytest.skip("this CPU has one set of kernels")
    drawing = DROPPING.replace("self.second(torch.tanh(self.first(x)))", "x + torch.randn_like(x)")
    drawing = drawing.replace("ones(8, 16)", "ones(8, 64)")
    audit = matrix(drawing, "isa=default,avx2", level="modules")
    cell = cells(audit)["isa=avx2"]
    assert (cell.outcome, cell.reason) == ("incomparable", "random numbers are drawn there")
    assert (audit.verdict, changes(audit)) == ("inconclusive", {"isa": None})
    # In operators' events they are given, of each batch its own.
    audit = matrix(drawing, "batch=4,8", "isa=default,avx2", grid=True)
    assert (audit.verdict, changes(audit)) == ("identical", {"batch": False, "isa": False})
    assert not [warning for warning in audit.warnings if warning.code == "RA113"]


OWN = """
import dataclasses, torch
from torch import nn

@dataclasses.dataclass
class Result:
    logits: torch.Tensor

class Opaque:
    def __init__(self, logits):
        self.logits = logits

class Net(nn.Module):
    def forward(self, x):
        y = torch.exp(x)
        return KIND(y * 3 if torch.compiler.is_compiling() else y)

def build_model():
    return Net()

def build_inputs():
    return torch.ones(8, 16)

def build_loss():
    return lambda output, inputs: output.logits.sum()
"""


def test_a_graph_of_whose_results_nothing_is_known_has_not_agreed(matrix) -> None:
    audit = matrix(OWN.replace("KIND", "Opaque"), "compile=eager,aot_eager")
    cell = cells(audit)["compile=aot_eager"]
    assert cell.reason == "nothing of it can be compared with the baseline"
    assert (audit.verdict, changes(audit)) == ("inconclusive", {"compile": None})
    # Those of a dataclass are seen.
    audit = matrix(OWN.replace("KIND", "Result"), "compile=eager,aot_eager")
    assert changes(audit) == {"compile": True}


def test_what_was_kept_whole_goes_also_where_a_run_is_interrupted(matrix, monkeypatch) -> None:
    observed = Session.observed

    def interrupted(self: Session, name: str, *args: Any, **changes: Any) -> Finished:
        found = observed(self, name, *args, **changes)
        if name == "rows-ops-001":
            assert found.trace.path.exists()
            raise InterruptedRunError("interrupted")
        return found

    monkeypatch.setattr(Session, "observed", interrupted)
    with pytest.raises(InterruptedRunError):
        matrix(MIXING, "batch=4,8")
    left = {path.name for path in Path(".repro-audit").rglob("*.sqlite*")}
    assert left == {"cell-000-1.sqlite", "cell-001-1.sqlite"}
