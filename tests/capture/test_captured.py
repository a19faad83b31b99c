"""While a CUDA graph is captured: nothing is held, fetched or given; CUDA is a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from repro_audit import engine
from repro_audit.capture import Recorder, calls, late
from repro_audit.capture.draws import Draws
from repro_audit.capture.operators import _SCRATCH, Operator
from repro_audit.capture.readings import Readings
from repro_audit.capture.values import Values
from repro_audit.engine import queues
from repro_audit.model import SiteKey

from . import test_given, test_lockstep
from .conftest import MemorySink, record_call
from .test_values import KeepingSink

aten = torch.ops.aten


class Capture:
    """Whether the calling thread captures a graph."""

    on = False


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Capture:
    found = Capture()
    monkeypatch.setattr(engine, "capturing", lambda: found.on)
    monkeypatch.setattr(engine, "captive", lambda: found.on)
    return found


def within(capture: Capture, work: Callable[[], Any]) -> Any:
    capture.on = True
    try:
        return work()
    finally:
        capture.on = False


def test_a_call_is_not_kept(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its generator has no state to tell, nor its arguments anything to read."""
    monkeypatch.setattr(calls, "_default_generator", lambda *given: 1 / 0)
    key = SiteKey(0, "forward", "", "aten.rand.default", 0)
    run = record_call(lambda: within(capture, lambda: torch.rand(3)), capture=(key,))
    assert run.sink.calls == {}
    assert len(run.ops("aten.rand")) == 1


def test_a_replica_holds_nothing_and_hears_nothing(capture: Capture) -> None:
    heard: list[int] = []

    def answer(line: test_lockstep.Line) -> list[tuple[bytes, int, int]]:
        heard.append(capture.on)
        return test_lockstep.matching(line)

    def work() -> None:
        x = torch.ones(3)

        def captured() -> None:
            for _ in range(40):
                x.add_(1)

        within(capture, captured)
        x.mul_(2)

    line = test_lockstep.Line(answer)
    lockstep = test_lockstep.Lockstep(test_lockstep.Sink(), line, events=4)
    recorder = Recorder(lockstep, bases=())
    made: list[Any] = []
    hold = lockstep.holds

    def holds(*given: Any) -> Any:
        made.append((capture.on, hold(*given)))
        return made[-1][1]

    lockstep.holds = holds  # type: ignore[method-assign]
    recorder.start()
    try:
        work()
    finally:
        line._answer = lambda line: [(test_lockstep.FREE, 0, 0)]
        recorder.stop(at_once=True)
    assert sum(on for on, _ in made) == 40
    assert all(pending is None for on, pending in made if on)
    assert all(pending is not None for on, pending in made if not on)
    assert not any(heard)


def test_samples_wait_for_the_end(capture: Capture) -> None:
    sink = KeepingSink()
    values = Values(sink, Readings(sink, None), samples=2, budget=0)  # type: ignore[arg-type]
    values._gathered.append((0, 0, torch.ones(2, dtype=torch.uint8)))
    within(capture, values.settle)
    assert sink.samples == []
    values.settle()
    assert sink.samples == [(0, 0, b"\x01\x01")]
    within(
        capture,
        lambda: values.take(1, 0, torch.ones(3), step=0, phase=0, starting=False),
    )
    assert values._gathered == []
    assert len(sink.samples) == 1


def test_samples_come_from_the_streams_that_gathered_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The current stream has nothing to do with them."""
    followed: list[set[str]] = []
    streams = ["a", "b", "a"]
    monkeypatch.setattr(engine, "stays", lambda t: True)
    monkeypatch.setattr(engine, "stream_of", lambda t: streams.pop(0))
    monkeypatch.setattr(engine, "follow", lambda given: followed.append(set(given)))
    sink = KeepingSink()
    values = Values(sink, Readings(sink, None), samples=2, budget=0)  # type: ignore[arg-type]
    for index in range(3):
        values.take(index, 0, torch.ones(3), step=0, phase=0, starting=False)
    values.settle()
    values.settle()
    assert followed == [{"a", "b"}, set()]
    assert len(sink.samples) == 3


def test_following_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, device: int) -> None:
            self.device = device

        def wait_stream(self, other: Stream) -> None:
            waited.append((self, other))

    waited: list[tuple[Stream, Stream]] = []
    current = {0: Stream(0), 1: Stream(1)}
    monkeypatch.setattr(queues, "current", current.get)
    others: list[Any] = [Stream(1), Stream(0)]
    engine.follow(others)
    assert waited == [(current[1], others[0]), (current[0], others[1])]


def test_the_host_has_no_streams() -> None:
    assert engine.stream_of(torch.ones(3)) is None


def test_nothing_is_given(capture: Capture) -> None:
    wanted = test_given.Values({("", "aten.rand.default", 0): torch.full((3,), 0.25)})
    _, given, result = test_given.run(
        lambda: within(capture, lambda: torch.rand(3)), draws=wanted, all=wanted
    )
    assert result.tolist() != [0.25] * 3
    assert not given.taken
    assert given.missing["draws"] == given.missing["all"] == 1


def test_no_generator_is_seeded(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    recorder = Recorder(MemorySink(), bases=())
    draws = Draws(recorder, ledger=False, by_line=True)
    within(capture, lambda: draws.seed_torch(sys._getframe(), "cuda:0"))
    assert seeded == []
    draws.seed_torch(sys._getframe(), "cuda:0")
    assert len(seeded) == 1


class Graph:
    """A CUDA graph that notes what it is asked for."""

    asked: list[Any] = []  # noqa: RUF012

    def capture_begin(self, pool: Any = None) -> None:
        self.asked.append(("begin", pool))

    def replay(self) -> None:
        self.asked.append("replay")


def test_all_is_fetched_before_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for name in ("_cuda_beginAllocateCurrentThreadToPool", "_cuda_endAllocateToPool"):
        monkeypatch.setattr(torch._C, name, lambda *given: None, raising=False)
    plain = vars(Graph).copy()
    Graph.asked.clear()
    settle = Readings.settle

    def seen(self: Any, *, wait: bool = False) -> None:
        Graph.asked.append("fetch all" if wait else "fetch")
        settle(self, wait=wait)

    monkeypatch.setattr(Readings, "settle", seen)

    def work() -> bool:
        torch.ones(3)
        Graph.asked.clear()
        Graph().capture_begin(pool=3)
        Graph().replay()
        torch._C._cuda_beginAllocateCurrentThreadToPool(0, (0, 1))
        inside = engine.captive()
        torch._C._cuda_endAllocateToPool(0, (0, 1))
        assert not engine.captive()
        return inside

    run = record_call(work)
    assert run.result
    assert Graph.asked[:4] == ["fetch all", "fetch", ("begin", 3), "replay"]
    assert run.recorder.unseen["cuda-graphs"] == 1
    assert {name: vars(Graph)[name] for name in ("replay", "capture_begin")} == {
        name: plain[name] for name in ("replay", "capture_begin")
    }


# -- copies that nothing waits for ----------------------------------------------------------------


def test_which_copies_are_late() -> None:
    here, there = torch.ones(3), torch.ones(3, device="meta")
    copy, to, many = (
        Operator(op.default) for op in (aten.copy_, aten._to_copy, aten._foreach_copy_)
    )
    assert late.sources(copy, (here, there, True), {}) == [there]
    assert late.sources(copy, (here, there), {"non_blocking": True}) == [there]
    assert late.sources(copy, (here, there), {}) == []
    assert late.sources(copy, (here, there, False), None) == []
    assert late.sources(copy, (here, here, True), {}) == []
    assert late.sources(to, (there,), {"device": "cpu", "non_blocking": True}) == [there]
    assert late.sources(many, ([here, here], [there, here], True), {}) == [there, here]
    assert Operator(aten.add.Tensor).copied is None


def test_a_late_copy_is_read_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that is returned has other bits, still."""
    source, host = torch.arange(4.0), torch.full((4,), 7.0)
    monkeypatch.setattr(late, "sources", lambda operator, args, kwargs: [source])
    run = record_call(lambda: host.copy_(torch.zeros(4), True))
    (event,) = run.ops("aten.copy_")
    assert event.digests == [engine.tensor_digest(source)]
    assert event.outputs[0][:2] == ("float32", (4,))
    monkeypatch.setattr(late, "sources", lambda operator, args, kwargs: [source.double()])
    run = record_call(lambda: host.copy_(torch.zeros(4), True))
    (event,) = run.ops("aten.copy_")
    assert event.digests == [None]
    assert list(run.recorder.unobserved) == [
        "a copy to the host that nothing waits for, as another dtype"
    ]


# -- operators ------------------------------------------------------------------------------------


def test_record_stream_writes_nothing() -> None:
    operator = Operator(aten.record_stream.default)
    assert (operator.writes, operator.returns, operator.view) == ((), (), False)


def test_noise_that_is_not_drawn(record: Any) -> None:
    """Outside training nobody writes it."""
    rrelu = torch.nn.functional.rrelu
    run = record(lambda: rrelu(torch.ones(4096), training=False))
    (event,) = run.ops("aten.rrelu_with_noise")
    assert len(event.outputs) == 1
    inplace = Operator(aten.rrelu_with_noise_.default)
    assert [name for _, name in inplace.writes] == ["self"]


def test_of_several_outputs_each_has_a_name(record: Any) -> None:
    norm = torch.nn.BatchNorm1d(3)

    def work() -> None:
        x = torch.randn(4, 3)
        x.add_(1)
        x.max(dim=1)
        norm(x)
        torch.nn.functional.layer_norm(x, (3,))

    run = record(work)

    def names(op: str) -> list[str | None]:
        return [name for *_, name in run.ops(op)[0].outputs]

    assert names("aten.add_") == [None]
    assert names("aten.max") == ["values", "indices"]
    assert names("aten.native_batch_norm") == ["running_mean", "running_var", "0", "1", "2"]
    assert names("aten.native_layer_norm") == [None, "1", "2"]


def test_scratch_is_among_the_results() -> None:
    # What makes its operators known.
    import torch.distributed.fsdp

    for name, positions in _SCRATCH.items():
        namespace, _, base = name.rpartition(".")
        packet = getattr(getattr(torch.ops, namespace or "aten"), base)
        for overload in packet.overloads():
            schema = getattr(packet, overload)._schema
            assert max(positions) < len(schema.returns), name


def test_a_generator_that_was_not_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default one of the device that is asked for, as of the device of a tensor."""
    default, another = torch.Generator(), torch.Generator()

    def of(tensors: Any, kwargs: dict[str, Any]) -> torch.Generator:
        return default if kwargs.get("device") == "cuda" else another

    monkeypatch.setattr(calls, "_default_generator", of)
    call = calls.Call("aten.rand.default", ([3],), {"device": "cuda"}, True)
    assert [generator["own"] for generator in call.json["generators"]] == [False]
    handed = calls.Call("aten.rand.generator", ([3],), {"generator": torch.Generator()}, True)
    assert [generator["own"] for generator in handed.json["generators"]] == [True]


# -- the end --------------------------------------------------------------------------------------


def test_a_device_that_failed_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *, wait: bool = False) -> None:
        if wait or ended:
            ended.append(1)
            raise RuntimeError("CUDA error: device-side assert triggered\nand more")

    ended: list[int] = []
    monkeypatch.setattr(Readings, "settle", broken)
    monkeypatch.setattr(engine, "failed", lambda: True)
    run = record_call(lambda: torch.ones(3) + 1)
    assert len(run.ops("aten.add")) == 1
    assert "a device that failed: CUDA error: device-side assert triggered" in (
        run.recorder.unobserved
    )
    monkeypatch.setattr(engine, "failed", lambda: False)
    ended.clear()
    with pytest.raises(RuntimeError, match="device-side"):
        record_call(lambda: torch.ones(3) + 1)
