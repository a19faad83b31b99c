"""torch's run-time settings that decide bits, read without changing any."""

from __future__ import annotations

import functools
import operator
import sys
import warnings
from collections.abc import Callable
from typing import Any

from repro_audit.engine import accelerators_in_use, device_names

# Attributes below `torch`, and functions there to be called without arguments.
_ATTRIBUTES = (
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_fp16_accumulation",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_tf32",
    "backends.cuda.matmul.fp32_precision",
    "backends.cudnn.allow_tf32",
    "backends.cudnn.benchmark",
    "backends.cudnn.conv.fp32_precision",
    "backends.cudnn.deterministic",
    "backends.cudnn.enabled",
    "backends.cudnn.fp32_precision",
    "backends.cudnn.rnn.fp32_precision",
    "backends.fp32_precision",
    "backends.mkldnn.allow_tf32",
    "backends.mkldnn.conv.fp32_precision",
    "backends.mkldnn.deterministic",
    "backends.mkldnn.enabled",
    "backends.mkldnn.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision",
    "backends.mkldnn.rnn.fp32_precision",
    "utils.deterministic.fill_uninitialized_memory",
    "version.cuda",
    "version.git_version",
    "version.hip",
)
_FUNCTIONS = (
    "are_deterministic_algorithms_enabled",
    "backends.cpu.get_cpu_capability",
    "backends.cuda.cudnn_sdp_enabled",
    "backends.cuda.flash_sdp_enabled",
    "backends.cuda.fp16_bf16_reduction_math_sdp_allowed",
    "backends.cuda.math_sdp_enabled",
    "backends.cuda.mem_efficient_sdp_enabled",
    "backends.cuda.preferred_blas_library",
    "backends.cuda.preferred_linalg_library",
    "backends.cudnn.version",
    "backends.mha.get_fastpath_enabled",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "get_num_threads",
    "initial_seed",
    "is_deterministic_algorithms_warn_only_enabled",
)
_INDUCTOR = ("deterministic", "fallback_random", "max_autotune")


def torch_settings(torch: Any) -> dict[str, Any]:
    """Settings by dotted name below `torch`, sorted; JSON-able.

    One that cannot be read has the value `unreadable: ...`: once the new TF32 settings contradict
    the old ones, reading those raises. Devices are named only if the program started them.
    """
    found = {path: _read(functools.partial(_get, torch, path)) for path in _ATTRIBUTES}
    for path in _FUNCTIONS:
        found[path] = _read(functools.partial(_call, torch, path))
    found["cuda.devices"] = None
    for kind in accelerators_in_use():
        found[f"{kind}.devices"] = _read(functools.partial(device_names, kind))
    inductor = sys.modules.get("torch._inductor.config")
    for name in _INDUCTOR:
        found[f"_inductor.config.{name}"] = getattr(inductor, name, None)
    return dict(sorted(found.items()))


def _get(torch: Any, path: str) -> Any:
    return operator.attrgetter(path)(torch)


def _call(torch: Any, path: str) -> Any:
    return _get(torch, path)()


def _read(reader: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # Some readers are deprecated; that is not the program's doing.
            warnings.simplefilter("ignore")
            value = reader()
    except (AttributeError, AssertionError, RuntimeError) as error:
        return f"unreadable: {str(error).partition(chr(10))[0]}"
    plain = value is None or isinstance(value, bool | int | float | str | list)
    return value if plain else str(value)
