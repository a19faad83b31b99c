"""Operators that torch documents, or that were measured, to give other bits from run to run."""

from __future__ import annotations

from repro_audit.model.codes import ACCUMULATE

_ARRIVAL = "adds in whatever order threads arrive"
_LAST = "keeps whichever of several values for a place comes last"
_CPU = {name: f"{name.strip('_')}(accumulate=True) {_ARRIVAL}" for name in ACCUMULATE}
_CHOOSE = ("index_copy", "max_unpool2d", "max_unpool3d", "scatter")
# Names as in torch.use_deterministic_algorithms: without an in-place or variant suffix.
_CUDA = {
    **_CPU,
    **{
        name: f"{name} {_ARRIVAL} (atomic additions)"
        for name in (
            "_adaptive_avg_pool2d_backward",
            "_adaptive_avg_pool3d_backward",
            "_embedding_bag_dense_backward",
            "adaptive_avg_pool3d_backward",
            "adaptive_max_pool2d_backward",
            "avg_pool3d_backward",
            "bincount",
            "embedding_dense_backward",
            "fractional_max_pool2d_backward",
            "fractional_max_pool3d_backward",
            "grid_sampler_2d_backward",
            "grid_sampler_3d_backward",
            "histc",
            "index_add",
            "index_reduce",
            "max_pool3d_with_indices_backward",
            "reflection_pad1d_backward",
            "reflection_pad2d_backward",
            "reflection_pad3d_backward",
            "replication_pad1d_backward",
            "replication_pad2d_backward",
            "replication_pad3d_backward",
            "scatter_add",
            "scatter_reduce",
            "upsample_bicubic2d_backward",
            "upsample_bilinear2d_backward",
            "upsample_linear1d_backward",
            "upsample_trilinear3d_backward",
        )
    },
    "_ctc_loss_backward": "the backward of ctc_loss adds with atomics",
    "_scaled_dot_product_efficient_attention_backward": "this attention backward adds with atomics",
    "_scaled_dot_product_flash_attention_backward": "this attention backward adds with atomics",
    "convolution": "cuDNN may choose a convolution that adds with atomics",
    "convolution_backward": "cuDNN may choose a convolution backward that adds with atomics",
    "cumsum": "cumsum of floats sums blocks in an order of its own",
    # What CUDA adds for index_put, it sorts first.
    **{name: f"{name} {_LAST}" for name in ("_index_put_impl", "index_put")},
    **{name: f"{name} {_LAST}" for name in _CHOOSE},
    "nll_loss2d_forward": "nll_loss2d adds with atomics",
    "kthvalue": "kthvalue may pick another index among equals",
    "median": "median may pick another index among equals",
}


def why(op: str, device: str, accumulates: bool | None) -> str | None:
    """Why `op` (such as `aten.index_put_.default`) may vary on `device`; None if it should not.

    `accumulates` says whether it was called so, where that is known and makes a difference.
    """
    name = base_of(op)
    if name in ACCUMULATE and accumulates is False:
        return f"{name.strip('_')} {_LAST}"
    return (_CPU if device.startswith("cpu") else _CUDA).get(name)


def chooses(op: str, accumulates: bool | None) -> bool:
    """True if results differ by which of several values is kept: nothing is rounded there."""
    name = base_of(op)
    return name in _CHOOSE or (name in ACCUMULATE and accumulates is False)


def base_of(op: str) -> str:
    """`index_put` of `aten.index_put_.default`; empty for what is not torch's own."""
    namespace, _, rest = op.partition(".")
    return rest.partition(".")[0].removesuffix("_") if namespace == "aten" else ""
