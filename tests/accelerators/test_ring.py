"""The ring on devices whose streams torch tells of: order, overflow, no waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import accelerators, queues, ring
from repro_audit.errors import UnsupportedTensorError


def some(device: torch.device, count: int = 20) -> list[torch.Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(n % 7 + 1, 3 * (n % 5), device=device) for n in range(count)]
    made += [torch.randn(64, 33, device=device).t(), torch.randn(9, device=device).bfloat16()[1:]]
    z = torch.randn(8, dtype=torch.complex64, device=device)
    return [*made, z, z.conj(), z.conj().imag, torch.randn(1 << 16, device=device)]


@contextmanager
def unwaited() -> Iterator[None]:
    """What makes the host wait is an error, where the device can tell."""
    try:
        from standin.native import native
    except ImportError:
        yield
        return
    native.set_sync_debug_mode(2)
    try:
        yield
    finally:
        native.set_sync_debug_mode(0)


def test_the_same_as_the_hosts(device: torch.device) -> None:
    tensors = some(device)
    found: ring.Ring[int] = ring.Ring(device, slots=16)
    for n, t in enumerate(tensors):
        found.add(t, n)
    expected = [engine.tensor_digest(t.cpu()) for t in tensors]
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(len(tensors))] == expected


@pytest.mark.streams
def test_streams(device: torch.device) -> None:
    """A half is written from several streams, and copied from whichever fills it up."""
    found: ring.Ring[int] = ring.Ring(device, slots=4)
    streams = [torch.Stream(device) for _ in range(3)]
    expected = {}
    torch.accelerator.synchronize()
    for n in range(30):
        with streams[n % 3]:
            t = torch.full((5000,), float(n), device=device)
            t.add_(1)
            found.add(t, n)
        expected[n] = engine.tensor_digest(torch.full((5000,), n + 1.0))
    assert dict(found.ready(wait=True)) == expected


def test_values_are_those_of_the_moment(device: torch.device) -> None:
    found: ring.Ring[int] = ring.Ring(device, slots=8)
    expected = []
    t = torch.zeros(1 << 12, device=device)
    for n in range(30):
        t += 1
        found.add(t, n)
        expected.append(engine.tensor_digest(torch.full((1 << 12,), n + 1.0)))
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(30)] == expected


@pytest.mark.streams
def test_nobody_waits(device: torch.device) -> None:
    found: ring.Ring[int] = ring.Ring(device, slots=8)
    tensors = [torch.randn(9, device=device) for _ in range(8)]
    expected = [engine.tensor_digest(t.cpu()) for t in tensors]
    found.add(tensors[0], -1)
    found.ready(wait=True)
    with unwaited():
        # More than a half: one is on its way to the host meanwhile.
        for n in range(8):
            found.add(tensors[n], n)
        found.add(tensors[0], 8)
    assert found.waits == 0
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(8)] == expected


@pytest.mark.streams
def test_threads(device: torch.device) -> None:
    rings: ring.Rings[int] = ring.Rings()
    tensors = some(device, 8)
    expected = {n: engine.tensor_digest(t.cpu()) for n, t in enumerate(tensors)}
    torch.accelerator.synchronize()

    def work(first: int) -> None:
        with torch.Stream(device):
            for n in range(first, len(tensors), 2):
                rings.of(device).add(tensors[n], n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(rings.ready(wait=True)) == expected


@pytest.mark.streams
def test_what_was_gathered_on_another_stream_comes_after_it(device: torch.device) -> None:
    t = torch.arange(1000.0, device=device)
    torch.accelerator.synchronize()
    with torch.Stream(device):
        elements = engine.gathered(t, 10)
        stream = engine.stream_of(t)
    assert stream is not None
    engine.follow([stream])
    assert elements.cpu().numpy().tobytes() == engine.sample(t.cpu(), 10)


def test_devices_without_streams(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch knows no streams of is read with a wait."""
    device = torch.device(kind, 0)
    monkeypatch.setattr(queues, "current", lambda device: None)
    found: ring.Ring[int] = ring.Ring(device, slots=4)
    tensors = some(device, 8)
    found.add_all(tensors, range(len(tensors)))
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(len(tensors))] == [engine.tensor_digest(t.cpu()) for t in tensors]


@pytest.mark.streams
def test_several_devices(device: torch.device) -> None:
    other = torch.device(device.type, 1)
    assert torch.accelerator.device_count() > 1
    rings: ring.Rings[int] = ring.Rings()
    tensors = [*some(device, 3), *some(other, 3)]
    for n, t in enumerate(tensors):
        rings.of(t.device).add(t, n)
    got = dict(rings.ready(wait=True))
    assert [got[n] for n in range(len(tensors))] == [engine.tensor_digest(t.cpu()) for t in tensors]


def test_a_device_without_events(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read with a wait, as one without streams."""

    def refused(device: torch.device, tables: object) -> None:
        raise RuntimeError("Backend doesn't support events.")

    monkeypatch.setattr(queues, "Clock", refused)
    found: ring.Ring[int] = ring.Ring(device, slots=4)
    t = torch.randn(9, device=device)
    found.add(t, 0)
    assert dict(found.ready(wait=True)) == {0: engine.tensor_digest(t.cpu())}


def test_a_stream_that_is_captured(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    module = getattr(torch, device.type)
    t = torch.ones(9, device=device)
    rings: ring.Rings[int] = ring.Rings()
    monkeypatch.setattr(accelerators, "_with_graphs", [module])
    monkeypatch.setattr(module, "is_initialized", lambda: True, raising=False)
    monkeypatch.setattr(module, "is_current_stream_capturing", lambda: True, raising=False)
    with pytest.raises(UnsupportedTensorError, match="graph's capture"):
        rings.of(device)
    with pytest.raises(UnsupportedTensorError, match="graph's capture"):
        engine.tensor_digest(t)
    monkeypatch.setattr(module, "is_current_stream_capturing", lambda: False)
    rings.of(device).add(t, 0)
    assert dict(rings.ready(wait=True)) == {0: engine.tensor_digest(t.cpu())}


def test_a_fork(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    t = torch.ones(9, device=device)
    module = getattr(torch, device.type)
    monkeypatch.setattr(module, "_is_in_bad_fork", lambda: True, raising=False)
    with pytest.raises(UnsupportedTensorError, match=r"fork .* spawn"):
        engine.tensor_digest(t)
