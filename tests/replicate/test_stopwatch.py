"""What is waited for where a step is timed."""

from __future__ import annotations

import pytest
import torch

from repro_audit.replicate.stopwatch import Stopwatch


def test_a_capture_is_not_waited_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is captured whole ends inside the capture, where a wait would end that."""
    waits: list[int] = []
    capturing = [False, True]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing.pop(0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    watch = Stopwatch("nowhere", None)
    watch.stamp()
    watch.stamp()
    assert waits == [1]
    assert len(watch._times) == 2
