"""The hot path: the digest of one torch tensor, at every recorded op."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, devices, views
from repro_audit.engine.exchange import exchange

if TYPE_CHECKING:
    import torch


def _unprepared(tensor: Any) -> bytes | None:
    _prepare()
    return _at_once(tensor)


def _never(*given: Any) -> bytes | None:
    return None


# The digest, and a sample, of a plain tensor of the CPU in one call of the engine's; None for any
# other tensor, and of samples until the first digest.
_at_once: Callable[[Any], bytes | None] = _unprepared
_sampled: Callable[[Any, int], bytes | None] = _never


def _use(engine: choice.Engine) -> None:
    global _at_once, _sampled  # noqa: PLW0603
    _at_once = getattr(engine, "digest_tensor", _never)
    _sampled = getattr(engine, "sample_tensor", _never)


def _prepare() -> None:
    """At the first call, so that importing this room does not import torch."""
    from repro_audit import _engine

    if _at_once is _unprepared:
        exchange(_engine)
        choice.on_change(_use)
        choice.engine()


def view_digest(view: views.View, key: int = 0) -> bytes:
    """The 16-byte digest of a view, by the engine in use."""
    engine = choice.engine()
    if view.contiguous:
        return engine.digest(view.address, view.nbytes, view.tag, key)
    return engine.digest_strided(
        view.address, view.shape, view.strides, view.itemsize, view.tag, key
    )


def plain_digest(t: torch.Tensor) -> bytes | None:
    """As `tensor_digest` for a plain tensor of the CPU; None, at once, for what is not plain: other
    devices', subclasses, negative views, memory of other libraries that is gone. Raises nothing.
    """
    return _at_once(t)


def plain_sample(x: Any, count: int) -> bytes | None:
    """As `sample` for a plain tensor of the CPU; None, at once, for what is not plain."""
    return _sampled(x, count)


def tensor_digest(t: torch.Tensor) -> bytes:
    """The 16-byte digest, key 0, of a dense tensor of any shape and any dtype in `TAGS`, or of what
    another library gives as one through `__dlpack__`.

    0.5 to 2 µs and, from some 100 KiB on, the time of reading the tensor's memory; strided tensors
    cost more, and those of other devices than the CPU are waited for. Changes nothing of the tensor
    and records no autograd, so it may be called inside a dispatch mode's handler. Raises
    UnsupportedTensorError for sparse, nested, quantized, meta and fake tensors.
    """
    found = _at_once(t)
    if found is not None:
        return found
    if not views.is_tensor(t) and hasattr(type(t), "__dlpack__"):
        share = getattr(choice.engine(), "digest_shared", _never)
        return share(t) or tensor_digest(views.shared(t))
    if devices.stays(t):
        return devices.digest(t)
    return view_digest(views.of_tensor(t))


def tensor_digests(tensors: Iterable[torch.Tensor]) -> list[bytes]:
    """The 16-byte digests, key 0, of many tensors, in their order: a model's parameters, say.

    Each is what `tensor_digest` gives, and raises as that does. Small tensors are read by several
    threads together, where one alone would not be worth it, those of a CUDA device in one launch.
    """
    _prepare()
    held = list(tensors)
    ask = getattr(choice.engine(), "digest_tensors", None)
    digests: list[bytes | None] = ask(held) if ask else [None] * len(held)
    away = [i for i, t in enumerate(held) if digests[i] is None and devices.stays(t)]
    for i, digest in zip(away, devices.digests([held[i] for i in away]), strict=True):
        digests[i] = digest
    return [
        tensor_digest(t) if digest is None else digest
        for t, digest in zip(held, digests, strict=True)
    ]
