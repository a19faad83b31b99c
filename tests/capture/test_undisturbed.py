"""What is observed is what would have happened: bits, generators, hooks, forks, modes, threads."""

from __future__ import annotations

import copy
import os
import random
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.random
import pytest
import torch
from torch import nn
from torch._C import _distributed_c10d as c10d
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.data import DataLoader, TensorDataset, dataloader


def learn():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    updates = torch.optim.AdamW(net.parameters())
    data = DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), 4, shuffle=True)
    for x, y in data:
        updates.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        updates.step()
    return {**net.state_dict(), **{n: p.grad for n, p in net.named_parameters()}}


def states():
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


def test_methods_of_process_groups_are_given_back_as_they_were(record):
    held = [(c10d.ProcessGroup, "allgather"), (c10d.ProcessGroup, "allreduce"), (c10d.Work, "wait")]
    before = [vars(owner)[name] for owner, name in held]
    record(learn)
    # As functions that a class hands out they would no longer be bound to an instance.
    assert all(vars(owner)[name] is it for (owner, name), it in zip(held, before, strict=True))


def test_bits_and_generators_are_those_of_an_unobserved_run(record):
    random.seed(1)
    np.random.seed(1)
    plain, after = learn(), states()
    random.seed(1)
    np.random.seed(1)
    run = record(learn)
    assert states() == after
    assert plain.keys() == run.result.keys()
    assert all(torch.equal(plain[name], run.result[name]) for name in plain)


def test_equal_programs_have_equal_events(record):
    assert record(learn).values() == record(learn).values()


def test_everything_is_unhooked(record):
    def hooked():
        return (
            threading.Thread.start,
            ThreadPoolExecutor.submit,
            optimizers.Optimizer.__init__,
            dataloader._BaseDataLoaderIter.__next__,
            dataloader._MultiProcessingDataLoaderIter._try_get_data,
            torch.load,
            torch.serialization.load,
            torch.manual_seed,
            torch.seed,
            random.seed,
            random.Random.seed,
            np.random.seed,
            np.random.default_rng,
            dict(hooks._global_forward_pre_hooks),
            dict(hooks._global_forward_hooks),
            dict(optimizers._global_optimizer_pre_hooks),
            dict(optimizers._global_optimizer_post_hooks),
            _get_current_dispatch_mode(),
        )

    before = hooked()
    during = record(hooked).result
    assert hooked() == before
    assert [a == b for a, b in zip(before, during, strict=True)] == [False] * len(before)


def test_generators_and_seeds_are_events(record):
    def work():
        torch.manual_seed(5)
        random.seed(6)
        np.random.seed(7)
        np.random.default_rng(8)
        torch.randn(3)

    run = record(work)
    seeds = [e for e in run.seen if e.op.startswith("seed:")]
    assert [e.op for e in seeds] == [
        "seed:torch.manual_seed",
        "seed:random.seed",
        "seed:numpy.random.seed",
        "seed:numpy.random.default_rng",
    ]
    assert all(e.call_site is not None and e.phase == "rng" for e in seeds)
    assert [e.random for e in run.ops("aten.randn")] == [True]
    # Before and after: the draw, and the seeds, show.
    first, last = ([e.digests[0] for e in run.ops(f"rng:{name}")] for name in ("torch", "numpy"))
    assert first[0] != first[-1]
    assert last[0] != last[-1]


def test_seedings_of_generators_that_nobody_draws_from(record):
    def work():
        made = [random.Random(), random.Random(), np.random.default_rng(), np.random.default_rng()]
        random.Random().random()  # Gone: nobody knows whether it was drawn from.
        random.seed(1)
        np.random.seed(1)
        made[1].random()
        made[3].random()
        np.random.rand()
        return made

    run = record(work)
    seeds = [e.index for e in run.seen if e.op.startswith("seed:")]
    assert len(seeds) == 7
    assert run.recorder.undrawn == [seeds[0], seeds[2], seeds[5]]


@pytest.mark.parametrize(("folder", "seen"), [("site-packages", 0), ("mine", 2)])
def test_what_a_library_seeds_while_it_is_imported_is_its_own(
    record, tmp_path, monkeypatch, folder: str, seen: int
):
    code = "import random, numpy\nrandom.Random().random()\nnumpy.random.default_rng()\n"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "some_library.py").write_text(
        f"{code}def sample():\n    random.Random().random()\n"
    )
    monkeypatch.syspath_prepend(tmp_path / folder)
    monkeypatch.delitem(sys.modules, "some_library", raising=False)

    def work():
        import some_library

        some_library.sample()

    run = record(work)
    monkeypatch.delitem(sys.modules, "some_library")
    assert len([e for e in run.seen if e.op.startswith("seed:")]) == seen + 1


def test_another_bit_generator_of_numpys_is_read(record):
    def work():
        before = np.random.get_bit_generator()
        np.random.set_bit_generator(np.random.PCG64(3))
        try:
            torch.optim.SGD([torch.ones(1, requires_grad=True)]).step()
        finally:
            np.random.set_bit_generator(before)

    assert len(record(work).ops("rng:numpy")) == 3


def test_batches_are_recorded_with_names_and_plain_values(record):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, at):
            return {"x": torch.full((2,), float(at)), "name": f"n{at}"}

    run = record(lambda: [batch["name"] for batch in DataLoader(Pairs(), 2)])
    assert run.result == [["n0", "n1"]]
    (batch,) = run.ops("DataLoader.__next__")
    assert (batch.kind, batch.phase) == ("batch", "data")
    assert [name for *_, name in batch.outputs] == ["x", "name"]


class Slow(torch.utils.data.Dataset):
    """Items whose workers take turns at random."""

    def __len__(self):
        return 6

    def __getitem__(self, at):
        time.sleep(time.time_ns() % 5 / 100)
        return torch.full((2,), float(at))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_workers_leave_the_trace_alone_whatever_their_order(record):
    def work():
        return [batch.sum().item() for batch in DataLoader(Slow(), 1, num_workers=2)]

    one, other = record(work), record(work)
    assert one.result == [0, 2, 4, 6, 8, 10]
    assert one.values() == other.values()
    assert len(one.ops("DataLoader.__next__")) == 6


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_runs_unobserved(record):
    def work():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            torch.ones(3).sum()
            os.write(write, bytes([recorder[0].active]))
            os._exit(0)
        os.waitpid(child, 0)
        return os.read(read, 1)

    recorder = []
    started = threading.Thread.start

    def find():
        mode = _get_current_dispatch_mode()
        recorder.append(mode.recorder)
        return work()

    run = record(find)
    assert run.result == b"\x00"
    assert run.ops("aten.ones") == []
    assert run.sink.discarded == 0
    assert threading.Thread.start is started


def test_threads_are_numbered_as_they_start_and_count_their_own_steps(record):
    def work():
        def background():
            for _ in range(3):
                turn.wait()
                torch.ones(2).sum()

        turn = threading.Barrier(2)
        thread = threading.Thread(target=background)
        thread.start()
        parameter = torch.ones(1, requires_grad=True)
        updates = torch.optim.SGD([parameter])
        for _ in range(3):
            updates.step()
            turn.wait()
        thread.join()
        return thread

    run = record(work)
    assert [(e.thread, e.step, e.call_index) for e in run.ops("aten.sum")] == [
        ("1", 0, 0),
        ("1", 0, 1),
        ("1", 0, 2),
    ]
    assert "run" not in vars(run.result)


def test_an_executors_tasks_are_told_apart_by_their_order_of_submission(record):
    def task(number):
        time.sleep(time.time_ns() % 5 / 500)
        return torch.full((2,), float(number)).sum()

    def work():
        with ThreadPoolExecutor(3) as pool:
            return sum(pool.map(task, range(8)))

    one, other = record(work), record(work)
    assert one.result == 56
    assert one.values() == other.values()
    assert sorted(e.thread for e in one.ops("aten.full")) == list("12345678")


@pytest.mark.parametrize("options", [{}, {"beginnings": True}])
def test_modes_and_subclasses_of_the_program_see_no_more_than_before(record, options):
    class Calls(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    class Wrapped(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        def __init__(self, inner):
            self.inner = inner

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            calls.append(func)
            plain = [a.inner if isinstance(a, cls) else a for a in args]
            return cls(func(*plain, **(kwargs or {})))

    def work():
        calls.clear()
        net = nn.Linear(2, 2)
        updates = torch.optim.SGD(net.parameters(), momentum=0.9)
        with Calls():
            for _ in range(2):
                net(torch.ones(1, 2)).sum().backward()
                updates.step()
        torch.empty(3)
        (Wrapped(torch.ones(2)) * 2).add(1)
        return list(calls)

    calls = []
    plain = work()
    assert record(work, **options).result == plain


def lazy():
    net = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    net(torch.ones(2, 4)).sum().backward()
    torch.optim.SGD(net.parameters()).step()


def nested():
    pieces = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    return (pieces * 2).values()


def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))(torch.ones(1, 2))


def sparse():
    table = nn.Embedding(5, 4, sparse=True)
    updates = torch.optim.SparseAdam(table.parameters())
    torch.empty(5)
    table(torch.tensor([1, 1, 3])).sum().backward()
    updates.step()
    return torch.eye(3).to_sparse().to_dense()


def fake():
    torch.empty(5)
    with torch._subclasses.fake_tensor.FakeTensorMode():
        net = nn.Linear(2, 2)
        updates = torch.optim.SGD(net.parameters())
        net(torch.ones(1, 2)).sum().backward()
        updates.step()


def inferring():
    with torch.inference_mode():
        return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()(torch.ones(1, 3, 8))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize("work", [lazy, nested, scripted, sparse, fake, inferring])
def test_what_works_works_observed(record, work):
    assert record(work).seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_functions_stay_compiled(record):
    def work():
        torch._dynamo.reset()
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        compiled = torch.compile(net, backend=backend, fullgraph=True)
        for _ in range(2):
            compiled(torch.ones(1, 2)).sum().backward()
        updates = torch.optim.SGD(net.parameters())
        torch.compile(updates.step, backend=backend)()
        return len(graphs)

    plain = work()
    assert record(work).result == plain
    torch._dynamo.reset()


def test_losses_of_labellings_are_computed_as_without_a_mode(record):
    """Under any mode torch leaves lengths in tensors, which on two devices it cannot divide by."""

    def loss(scores):
        return nn.functional.ctc_loss(
            scores.log_softmax(2),
            torch.arange(1, 13).view(3, 4),
            torch.full((3,), 20),
            torch.tensor([4, 3, 2]),
        )

    def work():
        torch.manual_seed(0)
        scores = torch.randn(20, 3, 15, requires_grad=True)
        value = loss(scores)
        value.backward()
        graph = torch.compile(loss, backend="eager")(scores)
        one_by_one = torch.func.vmap(torch.sum)(torch.ones(2, 3))
        # The division's, the loss's.
        node = value.grad_fn.next_functions[0][0].next_functions[0][0]
        return value.item(), scores.grad.tolist(), graph.item(), one_by_one.tolist(), node.name()

    plain = work()
    torch._dynamo.reset()
    recorded = record(work)
    torch._dynamo.reset()
    assert recorded.result == plain
    assert plain[-1] == "CtcLossBackward0"
    assert recorded.ops("aten._ctc_loss.default")


def test_the_recorder_keeps_no_model_alive(record):
    def work():
        net = nn.Sequential(nn.Linear(2, 2))
        net(torch.ones(1, 2))
        return weakref.ref(net), weakref.ref(copy.deepcopy(net)[0])

    run = record(work)
    assert [reference() for reference in run.result] == [None, None]
