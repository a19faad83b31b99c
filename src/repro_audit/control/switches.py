"""torch's determinism switches, all on."""

from __future__ import annotations

from typing import Any


def apply_deterministic(torch: Any) -> None:
    """Turn on every switch of torch (2.11 and later) that trades speed for repeatability.

    Operators without a deterministic implementation warn (`warn_only`), so that an audit can go on
    and name them. float32 stays float32: no TF32, no bfloat16 passes; and 16-bit products are
    summed in 32 bits. Nothing is restored: this is for a process of its own.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    backends = torch.backends
    backends.cudnn.deterministic = True
    backends.cudnn.benchmark = False
    # The old TF32 setting goes first. Written alone, the new ones contradict its default, and then
    # reading it raises, in `torch.backends.cudnn.flags()` too; written last, it resets them.
    backends.cudnn.allow_tf32 = False
    backends.cuda.matmul.allow_tf32 = False
    # Sets all backends; those below keep values of their own otherwise.
    backends.fp32_precision = "ieee"
    for setting in (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    ):
        setting.fp32_precision = "ieee"
    backends.cuda.matmul.allow_fp16_accumulation = False
    backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)
