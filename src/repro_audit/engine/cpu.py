"""The hot path: the digest of one torch tensor, at every recorded op."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, devices, views

if TYPE_CHECKING:
    import torch

# Filled at the first call, so that importing this room does not import torch.
_plain: set[type] = set()
_tags: dict[Any, int] = {}
_layouts: set[Any] = set()
_digest: Callable[..., bytes]
_digest_strided: Callable[..., bytes]
_readable: Callable[[int, int], bool]


def _use(engine: choice.Engine) -> None:
    global _digest, _digest_strided, _readable
    _digest, _digest_strided, _readable = engine.digest, engine.digest_strided, engine.readable


def _prepare() -> None:
    import torch

    from repro_audit.engine.tags import TAGS

    if _plain:
        return
    choice.on_change(_use)
    choice.engine()
    _layouts.add(torch.strided)
    _tags.update({getattr(torch, name): tag for name, tag in TAGS.items() if hasattr(torch, name)})
    _plain.update((torch.Tensor, torch.nn.Parameter))


def view_digest(view: views.View, key: int = 0) -> bytes:
    """The 16-byte digest of a view, by the engine in use."""
    engine = choice.engine()
    if view.contiguous:
        return engine.digest(view.address, view.nbytes, view.tag, key)
    return engine.digest_strided(
        view.address, view.shape, view.strides, view.itemsize, view.tag, key
    )


def _plain_end(t: torch.Tensor) -> int:
    """The address behind the storage of a tensor whose stream is strided memory of this process, as
    it lies there; 0 for any other.

    Memory that is not torch's own (a mapped file's) may be gone; `views.of_tensor` says so.
    """
    # Each question to the tensor costs 50 to 90 ns.
    if (
        type(t) in _plain
        and t.is_cpu
        and t.layout in _layouts
        and not t.is_nested
        and not t.is_neg()
        and not t.is_conj()
    ):
        storage = t.untyped_storage()
        start, size = storage.data_ptr(), storage.nbytes()
        if size and (storage.resizable() or _readable(start, size)):
            return start + size
    return 0


def tensor_digest(t: torch.Tensor) -> bytes:
    """The 16-byte digest, key 0, of a dense tensor of any shape and any dtype in `TAGS`, or of what
    another library gives as one through `__dlpack__`.

    1 to 3 µs and, from some 100 KiB on, the time of reading the tensor's memory; strided tensors
    cost more, and those of other devices than the CPU are waited for. Changes
    nothing of the tensor and records no autograd, so it may be called inside a dispatch mode's
    handler. Raises UnsupportedTensorError for sparse, nested, quantized, meta and fake tensors.
    """
    try:
        end = _plain_end(t)
        tag = _tags.get(t.dtype) if end else None
        if tag is not None:
            address = t.data_ptr()
            if not t.is_contiguous():
                return _digest_strided(address, t.shape, t.stride(), t.itemsize, tag, 0, 0, end)
            nbytes = t.nbytes
            if address + nbytes <= end:
                return _digest(address, nbytes, tag)
    except (RuntimeError, ValueError):
        pass  # no storage, or one at no address: what follows says which, or resolves it
    if not _plain:
        _prepare()
        return tensor_digest(t)
    if not views.is_tensor(t) and hasattr(type(t), "__dlpack__"):
        return tensor_digest(views.shared(t))
    if devices.stays(t):
        return devices.digest(t)
    return view_digest(views.of_tensor(t))


def tensor_digests(tensors: Iterable[torch.Tensor]) -> list[bytes]:
    """The 16-byte digests, key 0, of many tensors, in their order: a model's parameters, say.

    Each is what `tensor_digest` gives, and raises as that does. Those of a CUDA device are read in
    one launch. Small tensors are read by several
    threads together, where one alone would not be worth it: about 1.3 µs a tensor, and the time of
    reading them all.
    """
    _prepare()
    digests: list[bytes] = []
    table = array("Q")
    rows: list[int] = []
    away: list[int] = []
    for place, t in enumerate(held := list(tensors)):
        try:
            end = _plain_end(t)
            if end and t.is_contiguous() and t.dtype in _tags and t.data_ptr() + t.nbytes <= end:
                table.extend((t.data_ptr(), t.nbytes, _tags[t.dtype]))
                rows.append(place)
                digests.append(b"")
                continue
        except RuntimeError:
            pass  # no storage: tensor_digest says why
        if devices.stays(t):
            away.append(place)
            digests.append(b"")
            continue
        digests.append(tensor_digest(t))
    for place, digest in zip(away, devices.digests([held[i] for i in away]), strict=True):
        digests[place] = digest
    found = choice.engine().digest_table(table)
    del held  # their memory was read until here
    for i, place in enumerate(rows):
        digests[place] = found[16 * i : 16 * i + 16]
    return digests
