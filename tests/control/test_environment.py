"""A run's environment: what is controlled, what is left, what the user set himself."""

from typing import Any

import pytest

from repro_audit.control.environment import child_environment
from repro_audit.errors import UsageError
from repro_audit.model import Plan, Target

SCRIPT = Target("script", "train.py")


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {"run": "run-1", "target": SCRIPT, "trace": "t", "progress": "p"}
    return Plan(**{**values, **changes})


def test_controlled_fixes_the_hash_seed_and_nothing_else() -> None:
    base = {"HOME": "/home/me", "PYTHONHASHSEED": "random", "OMP_NUM_THREADS": "2"}
    assert child_environment(plan(), base) == {**base, "PYTHONHASHSEED": "0"}
    assert base["PYTHONHASHSEED"] == "random"


def test_as_is_touches_nothing_unless_given_a_hash_seed() -> None:
    base = {"PYTHONHASHSEED": "random"}
    assert child_environment(plan(mode="as-is", hash_seed=None), base) == base
    assert child_environment(plan(mode="as-is", hash_seed=None), {}) == {}
    assert child_environment(plan(mode="as-is", hash_seed=4242), base) == {"PYTHONHASHSEED": "4242"}


def test_deterministic_adds_its_variables_but_leaves_the_users_values() -> None:
    found = child_environment(plan(mode="deterministic"), {"CUBLAS_WORKSPACE_CONFIG": ":16:8"})
    assert found["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert found["PYTHONHASHSEED"] == "0"
    bare = child_environment(plan(mode="deterministic"), {})
    assert bare["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("kind", ["script", "module", "model-file", "class"])
def test_cpu_hides_every_accelerator(kind: Any) -> None:
    found = child_environment(plan(target=Target(kind, "x.py"), device="cpu"), {})
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["HIP_VISIBLE_DEVICES"] == ""
    assert found["REPRO_AUDIT_DEVICE"] == "cpu"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(None, "1"), ("4,5", "5"), ("GPU-a, GPU-b", "GPU-b")],
)
def test_one_device_is_the_users_own_second(shown: str | None, expected: str) -> None:
    base = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    found = child_environment(plan(device="cuda:1"), base)
    assert found["CUDA_VISIBLE_DEVICES"] == expected
    assert found["REPRO_AUDIT_DEVICE"] == "cuda:0"
    assert "HIP_VISIBLE_DEVICES" not in found


def test_rocm_has_a_list_of_its_own() -> None:
    found = child_environment(plan(device="cuda:1"), {"HIP_VISIBLE_DEVICES": "2,3"})
    assert found["HIP_VISIBLE_DEVICES"] == "3"


def test_a_device_that_is_not_shown_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES=4 shows 1\. Ask for one"):
        child_environment(plan(device="cuda:1"), {"CUDA_VISIBLE_DEVICES": "4"})


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_a_kind_of_device_hides_nothing(device: str) -> None:
    found = child_environment(plan(device=device), {})
    assert found == {"PYTHONHASHSEED": "0", "REPRO_AUDIT_DEVICE": device}


def test_a_model_file_keeps_the_names_of_devices() -> None:
    target = Target("model-file", "model.py")
    found = child_environment(plan(target=target, device="cuda:1"), {})
    assert found == {"PYTHONHASHSEED": "0", "REPRO_AUDIT_DEVICE": "cuda:1"}
