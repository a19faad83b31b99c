"""The streams of devices, in torch's own terms: of any accelerator that torch knows streams of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from repro_audit.engine.ring import Tables


def current(device: torch.device) -> torch.Stream | None:
    """The calling thread's current stream of a device; None where the device has but one queue, or
    its maker tells torch of no streams.
    """
    import torch

    if device.type in {"cpu", "meta", "mps"}:
        return None
    try:
        return torch.accelerator.current_stream(device)
    except (NotImplementedError, RuntimeError, ValueError):
        return None


class Clock:
    """The order of work on the streams of a device; see `ring.Clock`.

    Takes no stream of its own: one of the maker's pool would be missing from those that the program
    is given. So a half is copied on the stream that fills it up, behind the others.
    """

    def __init__(self, device: torch.device, tables: Tables) -> None:
        self._device = device
        self._tables = tables
        # A stream is known by its number, but an event wants the stream.
        self._streams: dict[int, torch.Stream] = {}
        # First that of the tables' making, then that of each half's zeroing.
        self._events = [self._now(), self._now()]

    def _current(self) -> Any:
        stream = current(self._device)
        assert stream is not None
        return stream

    def _now(self) -> torch.Event:
        event: torch.Event = self._current().record_event()
        return event

    def stream(self) -> int:
        """The calling thread's current stream."""
        stream = self._current()
        return self._streams.setdefault(stream.stream_id, stream).stream_id

    def join(self, half: int, stream: int) -> None:
        """Order the stream behind the half's zeroing."""
        self._streams[stream].wait_event(self._events[half])

    def collect(self, half: int, streams: set[int]) -> None:
        """Copy and zero on the current stream, behind the others."""
        table, host = self._tables[half]
        here = self._current()
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
