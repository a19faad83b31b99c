"""A plan survives the file it travels in."""

import json

import pytest

from repro_audit.errors import InconclusiveError
from repro_audit.model import Plan, SiteKey, Target
from repro_audit.replicate.plan import plan_from_json, plan_to_json

FULL = Plan(
    run="zoom-1a",
    target=Target("class", "a model.py", "Net", ("--x", "ü"), ("float32[2]", "int64[3]<9")),
    trace="/t",
    progress="/p",
    mode="as-is",
    seed=7,
    hash_seed=None,
    poison=0,
    device="cuda:1",
    steps=3,
    observe=False,
    end_state="/e",
    optimizer_ops=True,
    capture=(SiteKey(0, "forward", "a.b", "aten.mm.default", 2, 1),),
    since=1700000000.123456,
)
PLAIN = Plan(run="run-1", target=Target("script", "x.py"), trace="t", progress="p")


@pytest.mark.parametrize("plan", [FULL, PLAIN])
def test_round_trip(plan: Plan) -> None:
    values = plan_to_json(plan)
    assert json.loads(json.dumps(values)) == values
    found = plan_from_json(json.loads(json.dumps(values)))
    assert found == plan
    assert hash(found) == hash(plan)


@pytest.mark.parametrize(
    "change",
    [{"new": 1}, {"target": {"kind": "script"}}, {"capture": [{"step": 0}]}, {"target": None}],
)
def test_another_versions_plan_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InconclusiveError, match="no plan of this version"):
        plan_from_json({**plan_to_json(PLAIN), **change})


def test_a_missing_field_is_refused() -> None:
    values = plan_to_json(PLAIN)
    del values["run"]
    with pytest.raises(InconclusiveError, match="'run'"):
        plan_from_json(values)
