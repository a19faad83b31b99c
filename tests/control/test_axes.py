"""Values of axes in a process's environment, and in torch's settings."""

from __future__ import annotations

from repro_audit.control.environment import child_environment
from repro_audit.model import Plan, Target

BASE = {"OMP_NUM_THREADS": "8", "NVIDIA_TF32_OVERRIDE": "0", "HOME": "/here"}


def environment(*held: str) -> dict[str, str]:
    plan = Plan("run-1", Target("script", "train.py"), "", "", held=held)
    return child_environment(plan, BASE)


def test_what_is_read_when_a_process_starts() -> None:
    threads = environment("threads=3")
    assert (threads["OMP_NUM_THREADS"], threads["MKL_NUM_THREADS"]) == ("3", "3")
    assert environment("isa=avx2")["ATEN_CPU_CAPABILITY"] == "avx2"
    assert environment("tf32=off")["NVIDIA_TF32_OVERRIDE"] == "0"
    # It would forbid what is on.
    assert "NVIDIA_TF32_OVERRIDE" not in environment("tf32=on")
    plain = environment("mkldnn=off", "deterministic=off")
    assert plain == {**BASE, "PYTHONHASHSEED": "0"}
