"""The streams of devices, in torch's own terms: of any accelerator that torch knows streams of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from repro_audit.engine.ring import Tables


def current(device: torch.device) -> torch.Stream | None:
    """The calling thread's current stream of a device; None where the device has but one queue, or
    its maker tells torch of no streams.
    """
    if device.type in {"cpu", "meta", "mps"}:
        return None
    try:
        return _stream(device)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None


def _stream(device: torch.device) -> torch.Stream:
    import torch

    # Torch itself tells the streams of one kind of accelerator alone.
    of_module = getattr(getattr(torch, device.type, None), "current_stream", None)
    found = None if of_module is None else of_module(device)
    return found if isinstance(found, torch.Stream) else torch.accelerator.current_stream(device)


class Clock:
    """The order of work on the streams of a device; see `ring.Clock`.

    Takes no stream of its own: one of the maker's pool would be missing from those that the program
    is given. So a half is copied on the stream that fills it up, behind the others.
    """

    def __init__(self, device: torch.device, tables: Tables) -> None:
        """Raises NotImplementedError or RuntimeError where the device has streams and no events."""
        self._device = device
        self._tables = tables
        # A stream is known by its number, but an event wants the stream.
        self._streams: dict[int, torch.Stream] = {}
        # First that of the tables' making, then that of each half's zeroing.
        here = _stream(device)
        self._events = [here.record_event(), here.record_event()]
        for event in self._events:
            here.wait_event(event)
            event.query()
            # Once, lest the first half that is full should find that nobody can wait.
            event.synchronize()

    def stream(self) -> int:
        """The calling thread's current stream."""
        stream = _stream(self._device)
        return self._streams.setdefault(stream.stream_id, stream).stream_id

    def join(self, half: int, stream: int) -> None:
        """Order the stream behind the half's zeroing."""
        self._streams[stream].wait_event(self._events[half])

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy and zero on the current stream, behind the others."""
        table, host = self._tables[half]
        here = _stream(self._device)
        for stream in streams - {here.stream_id}:
            here.wait_event(self._streams[stream].record_event())
        host.copy_(table, non_blocking=host.is_pinned())
        table.zero_()
        self._events[half] = here.record_event()

    def collected(self, half: int) -> bool:
        """Whether the copy is there."""
        return bool(self._events[half].query())

    def wait(self, half: int) -> None:
        """Wait for it."""
        self._events[half].synchronize()
