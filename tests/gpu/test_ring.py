"""The ring on a real device: streams, overflow, memory that is used again at once, no waiting."""

from __future__ import annotations

import threading

import pytest
import torch

from repro_audit import engine
from repro_audit.engine import ring
from repro_audit.errors import UnsupportedTensorError


def some(count: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(n % 7 + 1, 3 * (n % 5), device="cuda") for n in range(count)]
    made += [torch.randn(64, 33, device="cuda").t(), torch.randn(9, device="cuda").bfloat16()[1:]]
    z = torch.randn(8, dtype=torch.complex64, device="cuda")
    return [*made, z, z.conj(), z.conj().imag, torch.randn(1 << 20, device="cuda")]


def digests(tensors: list[torch.Tensor]) -> list[bytes]:
    return [engine.tensor_digest(t.cpu()) for t in tensors]


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def test_the_same_as_the_hosts(way: str) -> None:
    tensors = some(40)
    found: ring.Ring[int] = ring.Ring(device(), slots=16)
    for n, t in enumerate(tensors):
        found.add(t, n)
    found.add_all(tensors, range(100, 100 + len(tensors)))
    expected = digests(tensors)
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(len(tensors))] == expected
    assert [got[100 + n] for n in range(len(tensors))] == expected


def test_values_are_those_of_the_moment(way: str) -> None:
    """Each digest is begun before the value changes, and the memory is someone else's at once."""
    found: ring.Ring[int] = ring.Ring(device(), slots=8)
    expected = []
    t = torch.zeros(1 << 18, device="cuda")
    for n in range(50):
        t += 1
        made = t * 2
        found.add(t, 2 * n)
        found.add(made, 2 * n + 1)
        del made
        host = torch.full((1 << 18,), n + 1.0)
        expected += [engine.tensor_digest(host), engine.tensor_digest(host * 2)]
    got = dict(found.ready(wait=True))
    assert [got[n] for n in range(100)] == expected


def test_streams(way: str) -> None:
    found: ring.Ring[int] = ring.Ring(device(), slots=4)
    streams = [torch.cuda.Stream() for _ in range(3)]
    expected = {}
    torch.cuda.synchronize()
    for n in range(30):
        with torch.cuda.stream(streams[n % 3]):
            t = torch.full((5000,), float(n), device="cuda")
            torch.cuda._sleep(200_000 * (n % 4))
            t.add_(1)
            found.add(t, n)
            expected[n] = engine.tensor_digest(torch.full((5000,), n + 1.0))
    assert dict(found.ready(wait=True)) == expected


def test_nobody_waits(way: str) -> None:
    # As many launches as a device queues before its host has to wait.
    tensors = some(60) if way != "torch" else [torch.randn(9, device="cuda") for _ in range(5)]
    found: ring.Ring[int] = ring.Ring(device(), slots=4096)
    found.add_all(tensors, range(len(tensors)))
    # Code is loaded where it is first launched, which may wait.
    for t in tensors:
        found.add(t, -1)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(1_000_000_000)
        for n, t in enumerate(tensors):
            found.add(t, 1000 + n)
        assert not torch.cuda.current_stream().query(), "the device was waited for"
        found.ready()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.waits == 0
    assert len(found.ready(wait=True)) == 3 * len(tensors)


def test_a_graph_under_capture(way: str) -> None:
    found: ring.Ring[int] = ring.Ring(device())
    t = torch.randn(1000, device="cuda")
    found.add(t, 0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = t + 1
        with pytest.raises(UnsupportedTensorError, match="graph's capture"):
            found.add(u, 1)
        got = dict(found.ready())
    graph.replay()
    found.add(u, 2)
    got |= dict(found.ready(wait=True))
    assert got == {0: digests([t])[0], 2: digests([u])[0]}


def test_a_ring_first_wanted_under_capture(way: str) -> None:
    rings: ring.Rings[int] = ring.Rings()
    t = torch.ones(1000, device="cuda")
    t.mul_(2)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = t + 1
        with pytest.raises(UnsupportedTensorError, match="graph's capture"):
            rings.of(device())
    graph.replay()
    rings.of(device()).add(u, 0)
    assert dict(rings.ready(wait=True)) == {0: digests([u])[0]}


def test_another_thread_turns_its_ring_under_capture(way: str) -> None:
    """What CUDA calls unsafe in a capture is asked by a thread that captures nothing."""
    made: ring.Rings[int] = ring.Rings()
    t = torch.ones(1000, device="cuda")
    expected = digests([t])[0]
    captured, done = threading.Event(), threading.Event()
    got: list[tuple[int, bytes]] = []

    def work() -> None:
        captured.wait(60)
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                found: ring.Ring[int] = ring.Ring(device(), slots=4)
                for n in range(30):
                    found.add(t, n)
                    got.extend(found.ready())
                got.extend(found.ready(wait=True))
        finally:
            done.set()

    made.of(device()).add(t, 0)
    made.ready(wait=True)
    thread = threading.Thread(target=work)
    thread.start()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = t + 1
        captured.set()
        assert done.wait(60)
    thread.join()
    graph.replay()
    assert u.sum().item() == 2000
    assert dict(got) == dict.fromkeys(range(30), expected)


def test_a_ring_is_made_where_synchronising_is_forbidden(way: str) -> None:
    t = torch.ones(1000, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found: ring.Ring[int] = ring.Ring(device(), slots=4)
        for n in range(20):
            found.add(t, n)
        got = dict(found.ready(wait=True))
        assert torch.cuda.get_sync_debug_mode() == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got == dict.fromkeys(range(20), digests([t])[0])


def test_rings_come_and_go_in_the_same_memory() -> None:
    def one() -> None:
        found: ring.Ring[int] = ring.Ring(device())
        found.add(torch.ones(10, device="cuda"), 0)
        assert len(found.ready(wait=True)) == 1

    one()
    before = torch.cuda.memory_reserved()
    for _ in range(20):
        one()
    assert torch.cuda.memory_reserved() == before


def test_the_threads_device_stays(way: str) -> None:
    before = torch.cuda.current_device()
    rings: ring.Rings[int] = ring.Rings()
    for index in range(torch.cuda.device_count()):
        t = torch.arange(100.0, device=f"cuda:{index}")
        rings.of(t.device).add(t, index)
        assert torch.cuda.current_device() == before
    host = engine.tensor_digest(torch.arange(100.0))
    assert dict(rings.ready(wait=True)) == dict.fromkeys(range(torch.cuda.device_count()), host)
    assert torch.cuda.current_device() == before


def test_the_programs_pools_do_not_see_the_ring() -> None:
    torch.cuda.synchronize()
    a = torch.empty(1000, device="cuda")
    before = a.data_ptr()
    del a
    rings: ring.Rings[int] = ring.Rings()
    rings.of(device())
    assert torch.empty(1000, device="cuda").data_ptr() == before


def test_samples(way: str) -> None:
    for t in some(20):
        for count in (1, 3, 100):
            assert engine.sample(t, count) == engine.sample(t.cpu(), count)
    assert engine.name_for("cuda") == way
