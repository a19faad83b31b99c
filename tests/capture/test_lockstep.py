"""One replica in lock-step, in this process: what it holds, tells and keeps at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from repro_audit.capture import Lockstep, Recorder
from repro_audit.capture.calls import rebuilt
from repro_audit.capture.held import Held, Memory

from .conftest import MemorySink

MATCHED, STOP, FREE = b"A", b"S", b"R"


class Sink(MemorySink):
    """A sink that is told what to take back."""

    last: dict[int, int]

    def attend(self, event: int) -> None:
        self.attended = event

    def cut_off(self, last: dict[int, int]) -> int:
        self.flush()
        self.last = last
        return sum(row[0] <= last[row[4]] for row in self.kept["e"])


class Line:
    """A line to a referee that answers each event, and each wait, by `answer`."""

    def __init__(self, answer: Callable[[Line], list[tuple[bytes, int, int]]]) -> None:
        self.open = True
        self.told: list[tuple[int, bytes, bytes]] = []
        self.waited = self.most = self.matched = 0
        self._answer = answer

    def thread(self, number: int, name: str) -> None: ...
    def done(self) -> None: ...

    def events(self, events: list[tuple[int, bytes, bytes]]) -> None:
        self.told += events
        self.most = max(self.most, len(self.told) - self.matched)

    def waits(self, number: int) -> None:
        self.waited += 1

    def orders(self, *, wait: bool) -> list[tuple[bytes, int, int]]:
        return self._answer(self) if wait else []

    def close(self) -> None:
        self.open = False


def matching(line: Line) -> list[tuple[bytes, int, int]]:
    line.matched = len(line.told)
    return [(MATCHED, 0, line.matched), *([(FREE, 0, 0)] if line.waited > 90 else [])]


def record(function: Callable[[], Any], line: Line, **limits: int) -> Sink:
    sink = Sink()
    recorder = Recorder(Lockstep(sink, line, **limits), bases=())
    recorder.start()
    try:
        function()
    finally:
        line._answer = lambda line: [(FREE, 0, 0)] if recorder._stopping else []
        recorder.stop(at_once=True)
    return sink


def test_memory_that_is_gone_is_not_held() -> None:
    """As sharded models free what they gathered: views of it are still made."""

    def work() -> None:
        whole = torch.arange(100_000.0)
        middle = whole[50:60]
        whole.untyped_storage().resize_(0)
        middle.view(2, 5)
        whole.view(10, -1)
        whole.untyped_storage().resize_(400_000)
        whole.zero_()

    line = Line(matching)
    record(work, line)
    assert len(line.told) > 3


def stopping_at(number: int) -> Callable[[Line], list[tuple[bytes, int, int]]]:
    def answer(line: Line) -> list[tuple[bytes, int, int]]:
        if len(line.told) <= number:
            line.matched = len(line.told)
            return [(MATCHED, 0, line.matched)]
        return [(MATCHED, 0, number), (STOP, 0, number)]

    return answer


def test_no_further_ahead_than_so_many_events() -> None:
    x, line = torch.ones(4), Line(matching)
    record(lambda: [x.add_(1) for _ in range(40)], line, events=8)
    assert (len(line.told), line.most) == (40, 8)
    # As many again only after a wait.
    assert line.waited == 4


def test_no_further_ahead_than_so_many_bytes() -> None:
    x, line = torch.ones(1024), Line(matching)
    record(lambda: [x.add_(1) for _ in range(40)], line, nbytes=10 * 8192)
    assert line.most == 10


def test_the_signature_is_of_what_was_written() -> None:
    def told(value: float) -> list[tuple[int, bytes, bytes]]:
        x, line = torch.ones(4), Line(matching)
        record(lambda: (x.add_(1), x.mul_(value), x.view(2, 2)), line)
        return line.told

    one, other = told(2.0), told(3.0)
    assert one[0] == other[0]
    assert (one[1][1], one[1][2] == other[1][2]) == (other[1][1], False)
    # A view writes nothing.
    assert one[2][2] == other[2][2] == bytes(16)


def kept_of(function: Callable[[], Any], number: int) -> tuple[Sink, int]:
    line = Line(stopping_at(number))
    sink = Sink()
    recorder = Recorder(Lockstep(sink, line, events=8), bases=())
    recorder.start()
    with pytest.raises(SystemExit):
        function()
    recorder.stop(at_once=True)
    assert recorder.caught
    assert recorder.halted
    return sink, sink.attended


def test_what_was_overwritten_meanwhile_is_kept_as_it_was() -> None:
    base = torch.arange(16.0)
    x = base[1::3]

    def run() -> None:
        while True:
            x.add_(1)

    sink, event = kept_of(run, 5)
    call = sink.calls[event]
    assert call["tensors"][0]["strides"] == [3]
    (x_before, _), _ = rebuilt_of(sink, event)
    assert x_before.tolist() == [1.0 + n + 5 for n in range(0, 15, 3)]
    assert list(memoryview(sink.payloads[event, 1, 0]).cast("f")) == [
        7.0 + n for n in range(0, 15, 3)
    ]
    # Its inputs, and the numbers among its arguments, have their fingerprints.
    rows = [row for row in sink.kept["i"] + sink.inputs if row[0] == event]
    assert [row[1] for row in rows] == [0, 1]
    assert all(row[3] is not None for row in rows)
    assert sink.last[0] == event


def rebuilt_of(sink: Sink, event: int) -> tuple[list[Any], dict[str, Any]]:
    call = sink.calls[event]
    memory = [sink.payloads[event, 0, n] for n in range(len(call["memory"]))]
    states = [sink.payloads[event, 2, n] for n in range(len(call["generators"]))]
    return rebuilt(call, memory, states)()


def test_a_draw_is_kept_with_its_generator() -> None:
    torch.manual_seed(3)
    torch.rand(4)
    fourth = [torch.rand(4) for _ in range(4)][3]
    torch.manual_seed(3)
    torch.rand(4)

    def run() -> None:
        while True:
            torch.rand(4)

    sink, event = kept_of(run, 3)
    before = torch.get_rng_state()
    try:
        arguments, keywords = rebuilt_of(sink, event)
        assert torch.equal(torch.rand(*arguments, **keywords), fourth)
    finally:
        torch.set_rng_state(before)


def test_lists_and_tensors_without_memory() -> None:
    tensors = [torch.ones(3), torch.ones(2, 2).t()]
    sparse = torch.ones(2, 2).to_sparse()

    def run() -> None:
        while True:
            torch._foreach_add_(tensors, 1.0)
            sparse.neg()

    sink, event = kept_of(run, 0)
    assert [sink.calls[event]["tensors"][n]["shape"] for n in range(2)] == [[3], [2, 2]]
    assert {key for key in sink.payloads if key[0] == event and key[1] == 1} == {
        (event, 1, 0),
        (event, 1, 1),
    }
    sink, event = kept_of(run, 1)
    assert sink.calls[event]["op"] == "aten.neg.default"
    assert "unknown" in str(sink.calls[event])
    assert all(row[3] is not None for row in sink.kept["i"] + sink.inputs if row[0] == event)


def test_held_memory_is_used_again() -> None:
    memory = Memory()
    x = torch.arange(8.0)
    held = Held(memory, [x, x[2:]], limit=1 << 20)
    x.zero_()
    assert held.nbytes == 32
    assert held.tensor(1).tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    # Memory that two share is held once, and they share it again.
    assert held.tensor(0).data_ptr() + 8 == held.tensor(1).data_ptr()
    first = held.tensor(0).data_ptr()
    del held
    assert Held(memory, [x], limit=1 << 20).tensor(0).data_ptr() == first
    assert not Held(memory, [x], limit=31).whole


def test_a_fork_has_no_part_in_it() -> None:
    line = Line(matching)
    recorder = Recorder(Lockstep(Sink(), line), bases=())
    recorder.abandon()
    assert not line.open
