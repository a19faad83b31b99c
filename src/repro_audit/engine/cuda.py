"""Digests, multisets and ULP divergences on CUDA devices, by the kernels of `repro_audit._cuda`,
or the same ones compiled by CuPy.

Kernels run on the caller's current stream; each function waits for its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, cuda_graphs
from repro_audit.engine.tags import TAGS
from repro_audit.errors import EngineError

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1
_checked: set[tuple[str, int]] = set()


def queue(device: torch.device) -> tuple[int, int]:
    """Index and current stream of a device, proven right before its first use.

    Raises EngineError where a kernel does not run there or answers wrongly.
    """
    import torch

    cuda_graphs.refuse()
    index = torch.cuda.current_device() if device.index is None else device.index
    asked = choice.name_for("cuda"), index
    if asked not in _checked:
        _checked.add(asked)
        try:
            with cuda_graphs.aside():
                _check(torch.device("cuda", index))
        except BaseException:
            _checked.discard(asked)
            raise
    return index, torch.cuda.current_stream(device).cuda_stream


def _check(device: torch.device) -> None:
    import torch

    from repro_audit.engine import torch_ops

    data = torch.arange(5000, dtype=torch.int64, device=device).to(torch.uint8)
    try:
        right = stream_lanes(data, 3, 1) == torch_ops.stream_lanes(data, 3, 1)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise EngineError(
            f"The CUDA kernels do not run on {torch.cuda.get_device_name(device)}: {error}. "
            f"Set {choice.VARIABLE}={choice.TORCH} to do without; `repro-audit doctor` says more."
        ) from error
    if not right:
        raise EngineError(
            f"The CUDA kernels answer wrongly on {torch.cuda.get_device_name(device)}. Run "
            f"`repro-audit doctor`; {choice.VARIABLE}={choice.TORCH} does without them."
        )


def _sums(count: int, device: torch.device) -> torch.Tensor:
    import torch

    try:
        return torch.zeros(2 * count, dtype=torch.int64, device=device)
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"No memory is left on {device} for {16 * count} bytes of checksums. Give the program "
            f"a smaller batch, or set {choice.VARIABLE}=portable to fingerprint on the host."
        ) from error


def _pairs(sums: torch.Tensor) -> list[tuple[int, int]]:
    found = [x & _MASK for x in sums.tolist()]
    return list(zip(found[::2], found[1::2], strict=True))


def stream_lanes(data: torch.Tensor, offset: int, key: int) -> tuple[int, int]:
    """The lanes of a flat uint8 tensor whose bytes stand at byte `offset` of their stream."""
    index, stream = queue(data.device)
    sums = _sums(1, data.device)
    choice.kernels().add_range(
        data.data_ptr(), data.numel(), offset, key, sums.data_ptr(), index, stream
    )
    return _pairs(sums)[0]


def tensor_lanes(t: torch.Tensor, key: int) -> tuple[int, int]:
    """The lanes of a dense tensor's stream, whatever its strides."""
    index, stream = queue(t.device)
    sums = _sums(1, t.device)
    choice.kernels().add_strided(
        t.data_ptr(),
        tuple(t.shape),
        t.stride(),
        t.itemsize,
        key,
        sums.data_ptr(),
        index,
        stream,
    )
    return _pairs(sums)[0]


def multiset_lanes(t: torch.Tensor, key: int) -> tuple[int, int]:
    """The multiset lanes of a dense tensor's elements."""
    index, stream = queue(t.device)
    sums = _sums(1, t.device)
    choice.kernels().add_multiset(
        t.data_ptr(),
        tuple(t.shape),
        t.stride(),
        t.itemsize,
        key,
        sums.data_ptr(),
        index,
        stream,
    )
    return _pairs(sums)[0]


def table_lanes(tensors: list[torch.Tensor], key: int = 0) -> list[tuple[int, int]]:
    """The lanes of contiguous tensors of one device, in one launch for 1,360 of them."""
    if not tensors:
        return []
    device = tensors[0].device
    index, stream = queue(device)
    places = [(t.data_ptr(), t.nbytes) for t in tensors]
    sums = _sums(len(tensors), device)
    choice.kernels().add_table(places, key, sums.data_ptr(), index, stream)
    return _pairs(sums)


def gathered(t: torch.Tensor, count: int) -> torch.Tensor:
    """The bytes of `count` sampled elements of a dense tensor, on its device."""
    import torch

    index, stream = queue(t.device)
    found = torch.empty(count * t.itemsize, dtype=torch.uint8, device=t.device)
    choice.kernels().sample(
        t.data_ptr(),
        tuple(t.shape),
        t.stride(),
        t.itemsize,
        count,
        found.data_ptr(),
        index,
        stream,
    )
    return found


def ulp(a: torch.Tensor, b: torch.Tensor, dtype: str) -> dict[str, Any]:
    """What two tensors of one device, shape and dtype `dtype` differ by, as `_engine.ulp` says it.

    Strided ones are copied on the device first.
    """
    import torch

    from repro_audit import _engine

    index, stream = queue(a.device)
    kernels = choice.kernels()
    a, b = a.contiguous(), b.contiguous()
    count = kernels.compare_records(a.numel(), index) if a.numel() else 0
    records = torch.empty(count * kernels.RECORD_BYTES, dtype=torch.uint8, device=a.device)
    if count:
        kernels.compare(
            TAGS[dtype],
            a.data_ptr(),
            b.data_ptr(),
            a.numel(),
            records.data_ptr(),
            index,
            stream,
        )
    return _engine.ulp_merge(records.cpu().numpy(), a.numel())
