"""A few elements that stand for a tensor, where all of it would be too much to keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, cpu, devices, queues, views

if TYPE_CHECKING:
    import torch


def sample(x: Any, count: int) -> bytes:
    """The bytes of `count` elements of a tensor or array, evenly spread over its stream; of all of
    them where there are no more.

    Which elements depends on the number of elements alone (SPEC.md, section 11): samples of two
    tensors of one shape compare element by element, wherever the tensors are. What is not on the
    host is gathered where it is, and waited for. 1 µs for a plain tensor, and some nanoseconds an
    element. Raises ValueError for a negative `count`, else as `fingerprint` does.
    """
    if count < 0:
        raise ValueError(f"count: {count} is negative")
    found = cpu.plain_sample(x, count)
    if found is not None:
        return found
    if devices.stays(x):
        return devices.sample(x, count)
    view = views.of(x)
    taken = min(count, view.numel)
    return choice.engine().sample(view.address, view.shape, view.strides, view.itemsize, taken)


def gathered(t: torch.Tensor, count: int) -> torch.Tensor:
    """The elements of `sample`, bytes in a tensor on the device of `t`, which is not waited for.

    Raises UnsupportedTensorError while a CUDA graph is captured: it would become part of that.
    """
    return devices.gathered(t, count)


def stream_of(t: torch.Tensor) -> torch.Stream | None:
    """The stream that what is gathered of `t` now comes from; None where it is the only one."""
    return queues.current(t.device)


def follow(streams: Iterable[torch.Stream]) -> None:
    """What the calling thread asks for from here on comes after what these streams do now."""
    for stream in streams:
        here = queues.current(stream.device)
        if here is not None:
            here.wait_stream(stream)
