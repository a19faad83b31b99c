"""The ring of deferred digests, on a device that is late: a clock that does its work on demand."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit import _engine, engine
from repro_audit.engine import cuda_ring, ring, views
from repro_audit.errors import EngineError, UnsupportedTensorError


class Late:
    """A clock of several streams, whose copies are made when they are waited for, or by `tick`."""

    def __init__(self, tables: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.tables = tables
        self.now = 1
        self.pending: list[int] = []
        self.joined: list[tuple[int, int]] = []
        self.collected_streams: list[set[int]] = []
        self.waits = 0

    def stream(self) -> int:
        return self.now

    def join(self, half: int, stream: int) -> None:
        # A stream must not write to a half whose copy has not been made.
        assert half not in self.pending
        self.joined.append((half, stream))

    def collect(self, half: int, streams: set[int]) -> None:
        assert half not in self.pending
        self.collected_streams.append(set(streams))
        self.tables[half][0].max()  # an operation, as those of a real copy
        self.pending.append(half)

    def tick(self) -> None:
        half = self.pending.pop(0)
        table, host = self.tables[half]
        with views.unseen():  # a device's copies are none of the host's operations
            host.copy_(table)
            table.zero_()

    def collected(self, half: int) -> bool:
        return half not in self.pending

    def wait(self, half: int) -> None:
        self.waits += 1
        while half in self.pending:
            self.tick()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ring.Ring[Any], Late]]:
    def made(slots: int) -> tuple[ring.Ring[Any], Late]:
        lanes = {"size": (2 * slots,), "dtype": torch.int64}
        tables = [(torch.zeros(**lanes), torch.zeros(**lanes)) for _ in range(2)]
        clock = Late(tables)
        monkeypatch.setattr(ring, "_parts", lambda *a: (ring.TorchWriter(), clock, tables))
        return ring.Ring(torch.device("cpu"), slots=slots), clock

    return made


def some(count: int, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(n % 7 + 1, 3 * (n % 5)) for n in range(count)]


def digests(tensors: list[torch.Tensor]) -> list[bytes]:
    return [engine.tensor_digest(t) for t in tensors]


def test_all_come_back_in_order(make) -> None:
    tensors = some(50)
    tokens: list[Any] = []
    found, _ = make(8)
    for n, t in enumerate(tensors):
        found.add(t, n)
        tokens += found.ready()
    tokens += found.ready(wait=True)
    assert tokens == list(enumerate(digests(tensors)))
    assert found.ready(wait=True) == []


def test_values_are_those_of_the_moment(make) -> None:
    found, _ = make(8)
    t = torch.zeros(5)
    expected = []
    for n in range(20):
        t += 1
        found.add(t, n)
        expected.append((n, engine.tensor_digest(t)))
    assert found.ready(wait=True) == expected


def test_only_an_overflow_waits(make) -> None:
    tensors = some(40)
    found, clock = make(10)
    got = []
    for n, t in enumerate(tensors):
        found.add(t, n)
        if clock.pending and n % 10 == 5:
            clock.tick()
        got += found.ready()
    assert (found.waits, clock.waits) == (0, 0)
    got += found.ready(wait=True)
    assert got == list(enumerate(digests(tensors)))
    # A device that never catches up: each turn but the first waits, and nothing is lost.
    found, clock = make(10)
    for n, t in enumerate(tensors):
        found.add(t, n)
    assert found.waits == clock.waits == 2
    assert found.ready(wait=True) == list(enumerate(digests(tensors)))


def test_streams_are_ordered_behind_the_zeroing_and_before_the_copy(make) -> None:
    tensors = some(12)
    found, clock = make(4)
    for n, t in enumerate(tensors):
        clock.now = n % 3
        found.add(t, n)
    found.ready(wait=True)
    assert clock.joined[:3] == [(0, 0), (0, 1), (0, 2)]
    assert clock.collected_streams == [{0, 1, 2}] * 3
    # Each half anew, at each turn.
    assert [half for half, _ in clock.joined] == [0] * 3 + [1] * 3 + [0] * 3


def test_many_at_once(make) -> None:
    tensors = [*some(30), torch.eye(3).to_sparse(), *some(5, 1)]
    found, _ = make(8)
    problems = found.add_all(tensors, list(range(36)))
    assert [n for n, problem in enumerate(problems) if problem is not None] == [30]
    assert "sparse" in str(problems[30])
    expected = dict(enumerate(digests(tensors[:30] + tensors[31:])))
    got = found.ready(wait=True)
    assert [token for token, _ in got] == [*range(30), *range(31, 36)]
    assert [digest for _, digest in got] == list(expected.values())


def test_a_tensor_without_a_digest_costs_a_slot_and_no_more(make) -> None:
    found, _ = make(4)
    a, b = some(2)
    found.add(a, "a")
    with pytest.raises(UnsupportedTensorError, match="meta"):
        found.add(torch.empty(2, device="meta"), "none")
    found.add(b, "b")
    assert found.ready(wait=True) == [("a", digests([a])[0]), ("b", digests([b])[0])]


def test_threads(make) -> None:
    tensors = some(400)
    found, _ = make(32)

    def work(first: int) -> None:
        for n in range(first, 400, 4):
            found.add(tensors[n], n)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.ready(wait=True)) == list(enumerate(digests(tensors)))


def test_no_operation_is_seen(make) -> None:
    class Seen(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            Seen.count += 1
            return func(*args, **(kwargs or {}))

    tensors = some(9)
    found, _ = make(4)
    with Seen():
        for n, t in enumerate(tensors):
            found.add(t, n)
        got = found.ready()
        got += found.ready(wait=True)
    assert got == list(enumerate(digests(tensors)))
    assert Seen.count == 0


@pytest.fixture
def by_torch() -> Iterator[None]:
    engine.select("torch")
    yield
    engine.select(None)


def test_a_device_with_one_queue(by_torch: None) -> None:
    """The whole of it, as for MPS or XPU, with the CPU as that device."""
    rings: ring.Rings[int] = ring.Rings()
    tensors = some(20)
    for n, t in enumerate(tensors):
        rings.of(t.device).add(t, n)
    assert rings.ready() == []
    assert rings.ready(wait=True) == list(enumerate(digests(tensors)))


def test_made_in_inference_mode(by_torch: None) -> None:
    rings: ring.Rings[int] = ring.Rings()
    t = torch.randn(5)
    with torch.inference_mode():
        rings.of(t.device).add(t, 0)
        rings.of(t.device).add(t + 1, 1)
    rings.of(t.device).add(t, 2)
    got = dict(rings.ready(wait=True))
    assert got == dict(enumerate(digests([t, t + 1, t])))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.func.jvp imports
@pytest.mark.parametrize(
    "transform",
    [
        torch.func.grad,
        lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
        lambda f: lambda x: torch.vmap(f)(x.expand(2, 5)),
        torch.func.functionalize,
    ],
)
def test_inside_a_transform(transform: Any, make) -> None:
    """It forbids writes to what it was not given, or puts them off."""
    tensors = some(9)
    found, clock = make(4)
    got: list[Any] = []

    def work(x: torch.Tensor) -> torch.Tensor:
        for n, t in enumerate(tensors):
            found.add(t, n)
            while clock.pending:
                clock.tick()
            got.extend(found.ready())
        got.extend(found.ready(wait=True))
        return (x * x).sum()

    transform(work)(torch.ones(5))
    assert got == list(enumerate(digests(tensors)))


def test_no_memory_for_the_ring(by_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(EngineError, match="No memory is left on cpu for the 512 KiB"):
        ring.Rings[int]().of(torch.device("cpu"))


class Kernels:
    """Launches of `_cuda`, onto the host's memory, that know plain tensors alone."""

    def __init__(self) -> None:
        self.launches: list[int] = []

    def _add(self, t: torch.Tensor, out: int) -> tuple[int, int] | None:
        if t.is_conj() or t.is_neg():
            return None
        whole = torch.zeros(2, dtype=torch.int64)
        ring.TorchWriter().add([t], whole, 0, 0)
        sums = (ctypes.c_int64 * 2).from_address(out)
        for lane, added in enumerate(whole.tolist()):
            sums[lane] += added
        return t.nbytes, engine.TAGS[str(t.dtype).removeprefix("torch.")]

    def add_tensor(self, t: torch.Tensor, out: int, device: int, stream: int) -> Any:
        self.launches.append(1)
        return self._add(t, out)

    def add_tensors(self, ts: list[torch.Tensor], out: int, device: int, stream: int) -> Any:
        self.launches.append(len(ts))
        return [self._add(t, out + 16 * at) for at, t in enumerate(ts)]

    def add_strided(self, address: int, sizes: Any, strides: Any, item: int, *rest: int) -> None:
        lanes = _engine.lanes_box(address, sizes, strides, item, sizes, [0] * len(sizes), 0)
        sums = (ctypes.c_uint64 * 2).from_address(rest[1])
        for lane in (0, 1):
            sums[lane] += lanes[lane]


def test_the_launches_of_a_cuda_ring(make, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Kernels()
    monkeypatch.setattr(cuda_ring.choice, "kernels", lambda kind="cuda": kernels)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    capturing = False
    found, _ = make(16)
    found._writer = cuda_ring._Writer(0)
    z = torch.randn(5, 7, dtype=torch.complex64)
    tensors = [*some(6), z.conj(), z.conj().imag, torch.empty(0, 3), torch.randn(4, 5).t()]
    found.add_all(tensors, list(range(10)))
    found.add(tensors[6], 10)
    assert kernels.launches == [10, 1]
    assert found.ready(wait=True) == list(enumerate(digests([*tensors, tensors[6]])))
    capturing = True
    with pytest.raises(UnsupportedTensorError, match="graph's capture"):
        found.add(tensors[0], 0)


def test_a_device_that_lacks_operations(by_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        raise NotImplementedError("Could not run 'aten::zero_' on abacus. And much more.")

    asked: list[Any] = []
    rings: ring.Rings[int] = ring.Rings()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", lacking)
        for _ in range(3):
            with pytest.raises(UnsupportedTensorError, match="'aten::zero_' on abacus\\)"):
                rings.of(torch.device("cpu"))
    assert len(asked) == 1
    monkeypatch.setattr(ring.views, "resolved", lambda t: t)
    from repro_audit.engine import torch_ops

    monkeypatch.setattr(torch_ops, "add_stream", lacking)
    with pytest.raises(UnsupportedTensorError, match="lacks what a digest takes"):
        ring.Rings[int]().of(torch.device("cpu")).add(torch.ones(3), 0)
