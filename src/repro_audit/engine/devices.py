"""Tensors on other devices than the CPU: fingerprinted where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, kernels, views
from repro_audit.engine.tags import PARTS, TAGS

if TYPE_CHECKING:
    import torch


def stays(x: Any) -> bool:
    """Whether `x` is a tensor that is digested on its own device, without a copy to the host."""
    if not views.is_tensor(x):
        return False
    import torch

    with torch._C.DisableTorchFunctionSubclass():
        kind = x.device.type
    return kind not in ("cpu", "meta") and choice.name_for(kind) in (*kernels.NAMES, choice.TORCH)


def _finalized(lanes: tuple[int, int], nbytes: int, tag: int) -> bytes:
    return choice.engine().finalize(*lanes, nbytes, tag)


@views.unseen()
def digest(t: torch.Tensor, key: int = 0) -> bytes:
    """The 16-byte digest of a tensor that `stays`; raises as `fingerprint` does."""
    t = views.resolved(t)
    tag = TAGS[views.dtype_name(t)]
    if t.numel() == 0:
        return _finalized((0, 0), 0, tag)
    if choice.kernels(t.device.type):
        from repro_audit.engine import cuda

        return _finalized(cuda.tensor_lanes(t, key), t.nbytes, tag)
    from repro_audit.engine import torch_ops

    return _finalized(torch_ops.stream_lanes(torch_ops.flat_bytes(t), 0, key), t.nbytes, tag)


@views.unseen()
def digests(tensors: list[torch.Tensor]) -> list[bytes]:
    """The 16-byte digests, key 0, of tensors that `stay`: one launch for all of a CUDA device that
    are contiguous.
    """
    found: dict[int, bytes] = {}
    tables: dict[torch.device, list[tuple[int, torch.Tensor]]] = {}
    for place, given in enumerate(tensors):
        t = views.resolved(given)
        if t.is_contiguous() and choice.kernels(t.device.type):
            tables.setdefault(t.device, []).append((place, t))
        else:
            found[place] = digest(t)
    for rows in tables.values():
        from repro_audit.engine import cuda

        lanes = cuda.table_lanes([t for _, t in rows])
        for (place, t), pair in zip(rows, lanes, strict=True):
            found[place] = _finalized(pair, t.nbytes, TAGS[views.dtype_name(t)])
    return [found[place] for place in range(len(tensors))]


@views.unseen()
def multiset(t: torch.Tensor, key: int, tag: int) -> bytes:
    """The 16-byte multiset digest of a tensor that `stays`; `tag` is added to its dtype's."""
    t = views.resolved(t)
    lanes = (0, 0)
    if t.numel() and choice.kernels(t.device.type):
        from repro_audit.engine import cuda

        lanes = cuda.multiset_lanes(t, key)
    elif t.numel():
        from repro_audit.engine import torch_ops

        lanes = torch_ops.multiset_lanes(torch_ops.flat_bytes(t), t.itemsize, key)
    return _finalized(lanes, t.nbytes, TAGS[views.dtype_name(t)] + tag)


def sample(t: torch.Tensor, count: int) -> bytes:
    """The bytes of `count` sampled elements, all if there are fewer, of a tensor that `stays`."""
    found = gathered(t, count)
    with views.unseen():
        return found.cpu().numpy().tobytes()


@views.unseen()
def gathered(t: torch.Tensor, count: int) -> torch.Tensor:
    """The same in a tensor of bytes on the device of `t`, which is not waited for."""
    import torch

    t = views.resolved(t)
    count = min(count, t.numel())
    try:
        if count and choice.kernels(t.device.type):
            from repro_audit.engine import cuda

            return cuda.gathered(t, count)
        from repro_audit.engine import torch_ops

        return torch_ops.gathered(t, count)
    except torch.OutOfMemoryError as error:
        raise views.without_room(t) from error


def ulp(a: Any, b: Any) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    """What two tensors differ by, found on their device, and the shape that indices are of; None
    where they are not of one CUDA device, dtype and shape: such are compared on the host.
    """
    if not (stays(a) and stays(b)):
        return None
    with views.unseen():
        return _ulp(a, b)


def _ulp(a: torch.Tensor, b: torch.Tensor) -> tuple[dict[str, Any], tuple[int, ...]] | None:
    if a.device != b.device or a.dtype != b.dtype:
        return None
    if a.shape != b.shape or not choice.kernels(a.device.type):
        return None
    from repro_audit.engine import cuda

    a, b = views.resolved(a), views.resolved(b)
    dtype = views.dtype_name(a)
    if dtype in PARTS:
        import torch

        a, b, dtype = torch.view_as_real(a), torch.view_as_real(b), PARTS[dtype]
    if dtype == "float4_e2m1fn_x2":
        return None
    return cuda.ulp(a, b, dtype), tuple(a.shape)
