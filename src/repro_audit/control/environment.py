"""The environment a run's process starts with: hash seed, determinism, visible devices."""

from __future__ import annotations

from collections.abc import Mapping

from repro_audit.control import axes
from repro_audit.control.pins import BY_NAME
from repro_audit.errors import UsageError
from repro_audit.model import Plan

# What decides bits and is read when a process, or torch in it, starts: recorded in every manifest.
KNOBS = (
    "ATEN_CPU_CAPABILITY",
    "CUBLASLT_WORKSPACE_SIZE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "DISABLE_ADDMM_CUDA_LT",
    "HIP_VISIBLE_DEVICES",
    "KMP_DETERMINISTIC_REDUCTION",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_NUM_THREADS",
    "NCCL_ALGO",
    "NCCL_NVLS_ENABLE",
    "NCCL_PROTO",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "REPRO_AUDIT_DEVICE",
    "REPRO_AUDIT_ENGINE",
    "TF_DETERMINISTIC_OPS",
    "TORCHINDUCTOR_DETERMINISTIC",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
    "TORCH_LINEAR_FLATTEN_3D",
    "TORCH_MKLDNN_MATMUL_MIN_DIM",
    "TORCH_MKLDNN_MATMUL_MIN_SIZE",
    "XLA_FLAGS",
)
# Variable and value that `--deterministic` adds where the user has set none.
DETERMINISTIC = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "NVIDIA_TF32_OVERRIDE": "0",
    "TF_DETERMINISTIC_OPS": "1",
    "TORCHINDUCTOR_DETERMINISTIC": "1",
}
# ROCm builds of torch read the second in place of the first; an empty value shows no device.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def child_environment(plan: Plan, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run: `base`, and what `plan` controls.

    `PYTHONHASHSEED` is set unless the run is as-is without a hash seed of its own. `device` hides
    all accelerators (`cpu`) or, from a script or module, all but one (`cuda:1`, which that program
    then sees as `cuda:0`); `REPRO_AUDIT_DEVICE` names the device as the program sees it. Raises
    UsageError where `base` does not show the device that is asked for.
    """
    environment = dict(base)
    if plan.mode != "as-is":
        environment["PYTHONHASHSEED"] = str(plan.hash_seed or 0)
    elif plan.hash_seed is not None:
        environment["PYTHONHASHSEED"] = str(plan.hash_seed)
    if plan.mode == "deterministic":
        for variable, value in DETERMINISTIC.items():
            environment.setdefault(variable, value)
    for name in plan.pins:
        environment.update(BY_NAME[name].environment)
    for variable, wanted in axes.environment(plan.held).items():
        environment.pop(variable, None)
        if wanted is not None:
            environment[variable] = wanted
    if plan.device is not None:
        environment.update(_device_variables(plan, environment))
    return environment


def _device_variables(plan: Plan, base: Mapping[str, str]) -> dict[str, str]:
    device = plan.device or ""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return {**dict.fromkeys(VISIBLE, ""), "REPRO_AUDIT_DEVICE": device}
    # A model file is moved to the device by that name, so the name must stay true.
    if kind != "cuda" or not index or plan.target.kind not in {"script", "module"}:
        return {"REPRO_AUDIT_DEVICE": device}
    chosen = {"CUDA_VISIBLE_DEVICES": _visible(device, int(index), "CUDA_VISIBLE_DEVICES", base)}
    if "HIP_VISIBLE_DEVICES" in base:
        chosen["HIP_VISIBLE_DEVICES"] = _visible(device, int(index), "HIP_VISIBLE_DEVICES", base)
    return {**chosen, "REPRO_AUDIT_DEVICE": "cuda:0"}


def _visible(device: str, index: int, variable: str, base: Mapping[str, str]) -> str:
    """The `index`-th device of those that the user's own setting shows."""
    if variable not in base:
        return str(index)
    shown = [word.strip() for word in base[variable].split(",") if word.strip()]
    if index >= len(shown):
        raise UsageError(
            f"--device {device} cannot be seen: {variable}={base[variable]} shows {len(shown)}. "
            f"Ask for one of these, or unset {variable}."
        )
    return shown[index]
