"""What was not the same when the runs ran."""

from __future__ import annotations

import pytest

from repro_audit.diagnose.manifests import differences
from repro_audit.model import ManifestDifference


def test_equal() -> None:
    manifest = {"run": "run-1", "versions": {"torch": "2.13.0", "numpy": None}, "threads": [1, 2]}
    other = {**manifest, "run": "run-2", "directory": "/elsewhere"}
    assert differences({"run-1": manifest, "run-2": other}) == ()
    assert differences({"run-1": manifest}) == ()
    assert differences({}) == ()


def test_fields_are_dotted_and_sorted() -> None:
    one = {"torch": {"threads": 2, "cudnn": {"benchmark": False}}, "environment": {"A": "1"}}
    other = {"torch": {"threads": 1, "cudnn": {"benchmark": True}}, "environment": {"A": "1"}}
    assert differences({"a": one, "b": other}) == (
        ManifestDifference("torch.cudnn.benchmark", {"a": False, "b": True}),
        ManifestDifference("torch.threads", {"a": 2, "b": 1}),
    )


def test_a_field_that_one_run_lacks() -> None:
    found = differences({"a": {"environment": {"OMP_NUM_THREADS": "2"}}, "b": {"environment": {}}})
    assert found == (ManifestDifference("environment.OMP_NUM_THREADS", {"a": "2", "b": None}),)
    assert differences({"a": {"torch": {"threads": 2}}, "b": {"torch": None}})


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, "1"), (0, False), (1, 1.0), ([1], [2])])
def test_values_of_other_kinds_differ(one: object, other: object) -> None:
    assert len(differences({"a": {"x": one}, "b": {"x": other}})) == 1


def test_absent_and_null_are_the_same() -> None:
    assert differences({"a": {"x": None}, "b": {}}) == ()


def test_three_runs() -> None:
    found = differences({"a": {"seed": 0}, "b": {"seed": 0}, "c": {"seed": 1}})
    assert found == (ManifestDifference("seed", {"a": 0, "b": 0, "c": 1}),)
