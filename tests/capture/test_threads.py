"""Threads and pools: named alike in every run, whatever their order, each with its own steps."""

from __future__ import annotations

import _thread
import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest
import torch
from torch import nn

# Enough for an order by arrival to come out differently; the wait is drawn anew each time.
REPETITIONS = 5


def dawdle():
    time.sleep(random.SystemRandom().uniform(0, 0.004))


def task(number):
    dawdle()
    return torch.full((2,), float(number)).sum()


def same_each_time(record, work, **options):
    """The last of some recordings, all of which hold the same."""
    first = record(work, **options)
    for _ in range(REPETITIONS - 1):
        again = record(work, **options)
        assert again.values() == first.values()
    return first


def test_tasks_of_a_thread_pool_are_named_by_their_order_of_submission(record):
    def work():
        with ThreadPool(3) as pool:
            mapped = pool.map(task, range(7), chunksize=2)
            applied = pool.apply_async(task, (10,))
            lazily = list(pool.imap(task, range(20, 23)))
            return float(sum(mapped) + applied.get() + sum(lazily))

    run = same_each_time(record, work)
    assert run.result == 2 * (21 + 10 + 63)
    assert sorted({e.thread for e in run.ops("aten.full")}) == [
        *("1.1", "1.2", "1.3", "1.4"),
        "2",
        *("3.1", "3.2", "3.3"),
    ]


def forked(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x).copy_(x).sin()


def forking(x: torch.Tensor) -> torch.Tensor:
    return torch.jit.wait(torch.jit.fork(forked, x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_operators_in_threads_of_native_code_run_and_are_no_events(record):
    x, scripted = torch.rand(3), torch.jit.script(forking)
    run = record(lambda: scripted(x), poison=0xFF)
    assert torch.equal(run.result, x.sin())
    assert not run.ops("aten.sin")
    assert run.recorder.unseen["native-threads"] == 3


def test_what_is_called_when_a_task_is_done_is_recorded(record):
    def work():
        done = threading.Event()
        with ThreadPool(2) as pool, ThreadPoolExecutor(2) as other:
            pool.apply_async(task, (1,), callback=lambda x: (x * 3, done.set())).wait()
            done.wait()
            future = other.submit(task, 2)
            future.add_done_callback(lambda f: f.result() * 5)

    run = same_each_time(record, work)
    assert [(e.thread, e.op) for e in run.seen if e.op == "aten.mul.Tensor"] == [
        ("1.done", "aten.mul.Tensor"),
        ("3", "aten.mul.Tensor"),
    ]


def test_threads_that_threads_start_are_named_after_them(record):
    def outer(number):
        dawdle()
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(task, [number * 10, number * 10 + 1]))

    def work():
        with ThreadPoolExecutor(2) as pool:
            return float(sum(pool.map(outer, [1, 2])))

    run = same_each_time(record, work)
    assert run.result == 2 * (10 + 11 + 20 + 21)
    assert sorted({e.thread for e in run.ops("aten.full")}) == ["1.1", "1.2", "2.1", "2.2"]


def test_asyncio_and_bare_threads(record):
    def work():
        async def main():
            return sum(await asyncio.gather(*(asyncio.to_thread(task, n) for n in range(4))))

        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(lambda: (task(7), done.release()), ())
        done.acquire()
        return float(asyncio.run(main()))

    run = same_each_time(record, work)
    assert run.result == 12
    assert len({e.thread for e in run.ops("aten.full")} - {""}) == 5


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(4, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        dawdle()
        return self.head(self.inner(x).relu())


def test_models_trained_in_two_threads(record):
    def work():
        nets = [Net(3), Net(5)]
        # Both are made before either steps: neither thread waits for the other's.
        updates = [torch.optim.SGD(net.parameters(), 0.1, momentum=0.9) for net in nets]

        def train(net, update):
            for _ in range(3):
                update.zero_grad()
                net(torch.ones(2, 4)).sum().backward()
                update.step()

        threads = [
            threading.Thread(target=train, args=pair) for pair in zip(nets, updates, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return nets

    run = same_each_time(record, work)
    assert run.unbound() == []
    assert run.recorder.steps == 3
    for thread in ("1", "2"):
        assert [(e.step, e.module) for e in run.ops("aten.addmm", thread=thread)] == [
            (step, module) for step in range(3) for module in ("inner", "head")
        ]
        assert [e.step for e in run.ops("param:weight", thread=thread, module="head")] == [0, 1, 2]
    # The models that only they ran are recorded at the end, in an order that is not theirs.
    last = [(e.module, e.outputs[0][1]) for e in run.ops("param:weight", thread="")]
    assert last == [
        ("inner", (3, 4)),
        ("head", (1, 3)),
        ("Net.inner", (5, 4)),
        ("Net.head", (1, 5)),
    ]


def graphs(order, where):
    """Two models' losses, built in two tasks; each run backward in the main thread or a task."""
    nets = [nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Sequential(nn.Tanh(), nn.Linear(4, 2))]

    def build(net):
        dawdle()
        return net(torch.ones(2, 4)).square().mean()

    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(build, nets))
        for at in order:
            if where == "main":
                losses[at].backward()
            else:
                pool.submit(losses[at].backward).result()


@pytest.mark.parametrize("where", ["main", "a task"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_graph_that_another_thread_built(record, order, where):
    run = same_each_time(record, lambda: graphs(order, where))
    assert run.unbound() == []
    by_index = {e.index: e for e in run.seen}
    for name, belongs, thread in (
        ("aten.threshold_backward", "aten.relu.default", "1"),
        ("aten.mm", "aten.addmm.default", None),
    ):
        for event in run.ops(name, phase="backward"):
            cause = by_index[event.cause]
            assert cause.op == belongs
            assert thread is None or cause.thread == thread
            assert event.module == cause.module
    assert {by_index[e.cause].thread for e in run.ops("aten.mm", phase="backward")} == {"1", "2"}


def test_a_graph_that_two_threads_built(record):
    def work():
        x, handed = torch.ones(2, 4, requires_grad=True), []

        def build():
            # Not returned, so that nothing says whose it is but its number and its name.
            handed.append(x.tanh().exp())

        with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
            pool.submit(build).result()
            total = other.submit(lambda: handed[0].sin().sum()).result()
        total.backward()

    run = record(work)
    assert run.unbound() == []
    by_index = {e.index: e for e in run.seen}
    causes = [
        (by_index[e.cause].thread, by_index[e.cause].op)
        for e in run.seen
        if e.phase == "backward" and e.cause is not None
    ]
    assert list(dict.fromkeys(causes)) == [
        ("2", "aten.sum.default"),
        ("2", "aten.sin.default"),
        ("1", "aten.exp.default"),
        ("1", "aten.tanh.default"),
    ]


def test_a_backward_whose_operators_are_named_as_its_nodes_in_a_thread_that_made_none(record):
    def work():
        loss = torch.ones(2, 4, requires_grad=True).pow(3).pow(2).sum()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()

    run = record(work)
    by_index = {e.index: e for e in run.seen}
    there = [e for e in run.seen if e.phase == "backward" and e.cause is not None]
    assert len(there) > 5
    assert {by_index[e.cause].phase for e in there} == {"forward"}
    assert {by_index[e.cause].thread for e in there} == {""}


def test_a_graph_of_the_main_thread_run_backward_in_another(record):
    def work():
        net = Net(3)
        losses = [net(torch.ones(2, 4)).sum() for _ in range(2)]

        # The thread's own numbers of nodes begin where those of the main thread did.
        def background():
            (torch.ones(3, requires_grad=True) * 2).sum().backward()
            losses[1].backward()

        thread = threading.Thread(target=background)
        thread.start()
        thread.join()

    run = record(work)
    by_index = {e.index: e for e in run.seen}
    assert run.unbound() == []
    there = [e for e in run.ops("aten.mm", phase="backward") if e.thread == "1"]
    assert {by_index[e.cause].thread for e in there} == {""}
    assert {e.module for e in there} == {"head", "inner"}
    (own,) = run.ops("aten.mul", phase="backward")
    assert by_index[own.cause].thread == "1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_limit_on_steps_ends_another_thread_there(record):
    parameter = nn.Parameter(torch.ones(2))

    def train():
        update = torch.optim.SGD([parameter], 0.1)
        for _ in range(9):
            parameter.grad = torch.ones(2)
            update.step()

    def work():
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        return torch.ones(1) + 1

    run = record(work, steps=2)
    assert [e.step for e in run.ops("param:group0.0")] == [0, 1]
    assert len(run.ops("aten.add", thread="")) == 1
    assert not run.recorder.stopped_at_limit


def test_a_thread_says_that_it_has_ended(record):
    def work():
        threads = [threading.Thread(target=function) for function in (waits, ends, idles)]
        for thread in threads:
            thread.daemon = True
            thread.start()
        threads[1].join()
        started.wait()

    started, let_go = threading.Event(), threading.Event()

    def waits():
        torch.ones(2).sum()
        started.set()
        let_go.wait()

    def ends():
        torch.ones(3).sum()

    def idles():
        pass

    run = record(work)
    let_go.set()
    assert {run.sink.threads[number] for number in run.sink.ended} == {"", "2"}
    assert set(run.sink.threads) == {"", "1", "2"}


def test_a_view_that_was_written_to_is_not_asked_for_its_node(record):
    def work():
        number = torch._C._autograd._get_sequence_nr

        def build():
            base = torch.ones(2, 3, requires_grad=True) * 1
            view = base[0]
            base.mul_(2)
            made.append(number())
            return view

        made = []
        with ThreadPoolExecutor(1) as pool:
            view = pool.submit(build).result()
            made.append(pool.submit(number).result())
        view.sum().backward()
        return made

    before, after = record(work).result
    assert before == after
