"""Settings of torch by which a kernel is chosen, or rounds: a call made again needs them as well.

Read before every operator that is held, so by torch's own functions, without the modules that wrap
them: some 6 us.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from repro_audit.model import Json

# By name below `torch`: the function that reads it with its arguments, and what torch begins with.
# A general setting goes before those that follow it.
_READ: dict[str, tuple[str, tuple[str, ...], Json]] = {
    "backends.fp32_precision": ("_get_fp32_precision_getter", ("generic", "all"), "none"),
    "backends.cudnn.fp32_precision": ("_get_fp32_precision_getter", ("cuda", "all"), "none"),
    "backends.mkldnn.fp32_precision": ("_get_fp32_precision_getter", ("mkldnn", "all"), "none"),
    "backends.cuda.matmul.fp32_precision": (
        "_get_fp32_precision_getter",
        ("cuda", "matmul"),
        "none",
    ),
    "backends.cudnn.conv.fp32_precision": ("_get_fp32_precision_getter", ("cuda", "conv"), "tf32"),
    "backends.cudnn.rnn.fp32_precision": ("_get_fp32_precision_getter", ("cuda", "rnn"), "tf32"),
    "backends.mkldnn.conv.fp32_precision": (
        "_get_fp32_precision_getter",
        ("mkldnn", "conv"),
        "none",
    ),
    "backends.mkldnn.matmul.fp32_precision": (
        "_get_fp32_precision_getter",
        ("mkldnn", "matmul"),
        "none",
    ),
    "backends.mkldnn.rnn.fp32_precision": ("_get_fp32_precision_getter", ("mkldnn", "rnn"), "none"),
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction": (
        "_get_cublas_allow_bf16_reduced_precision_reduction",
        (),
        [True, True],
    ),
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction": (
        "_get_cublas_allow_fp16_reduced_precision_reduction",
        (),
        [True, True],
    ),
    "backends.cuda.matmul.allow_fp16_accumulation": (
        "_get_cublas_allow_fp16_accumulation",
        (),
        False,
    ),
    "backends.cudnn.benchmark": ("_get_cudnn_benchmark", (), False),
    "backends.cudnn.deterministic": ("_get_cudnn_deterministic", (), False),
    "backends.cudnn.enabled": ("_get_cudnn_enabled", (), True),
    "backends.mkldnn.deterministic": ("_get_mkldnn_deterministic", (), False),
    "backends.mkldnn.enabled": ("_get_mkldnn_enabled", (), True),
}


def chosen() -> dict[str, Json]:
    """The settings that are not what torch begins with, by their names below `torch`."""
    found: dict[str, Json] = {}
    for name, read, usual in _readers():
        value = _plain(read())
        if value != usual:
            found[name] = value
    return found


def choose(settings: Mapping[str, Json]) -> None:
    """Set what `chosen` gave; all others as torch begins with them."""
    for name, read, usual in _readers():
        value = settings.get(name, usual)
        if _plain(read()) != value:
            owner, _, attribute = name.rpartition(".")
            setattr(operator.attrgetter(owner)(torch), attribute, value)


def _plain(value: Any) -> Json:
    return list(value) if isinstance(value, tuple) else value


@functools.cache
def _readers() -> list[tuple[str, Callable[[], Any], Json]]:
    """Those that this torch has."""
    return [
        (name, functools.partial(getattr(torch._C, function), *words), usual)
        for name, (function, words, usual) in _READ.items()
        if hasattr(torch._C, function)
    ]
