"""Level `modules`: what modules return and its gradients, and operators in an interval alone."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

from repro_audit import engine
from repro_audit.model import Interval, SiteKey


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.rest(self.first(x)) * 2)


def learn(steps=2):
    torch.manual_seed(3)
    net = Net()
    updates = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(steps):
        updates.zero_grad()
        net(torch.randn(5, 4)).square().mean().backward()
        updates.step()
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def names(events):
    return [(e.step, e.phase, e.module, e.op) for e in events]


def test_modules_and_gradients_in_the_order_in_which_they_happen(record):
    run = record(learn, level="modules")
    forward = ["first", "rest.0", "rest.1", "rest", "head", ""]
    back = ["", "head", "rest", "rest.1", "rest.0", "first"]
    events = [e for e in run.seen if e.kind == "module"]
    assert names(events) == [
        (step, phase, module, f"module:{op}")
        for step in (0, 1)
        for phase, op, modules in (("forward", "forward", forward), ("backward", "gradient", back))
        for module in modules
    ]
    assert not run.ops("aten.addmm")
    assert all(None not in e.digests for e in events)
    assert all(e.call_site and e.call_site.startswith("test_module_events.py") for e in events[:6])


def test_what_they_say_is_so(record):
    seen = {}

    def work():
        torch.manual_seed(3)
        net = Net()
        net.rest[1].register_forward_hook(lambda m, i, o: seen.update(output=o))
        loss = net(torch.randn(5, 4)).sum()
        seen["output"].retain_grad()
        loss.backward()

    run = record(work, level="modules")
    (given,) = run.ops("module:forward", module="rest.1")
    (gradient,) = run.ops("module:gradient", module="rest.1")
    assert given.digests == [engine.tensor_digest(seen["output"])]
    assert gradient.digests == [engine.tensor_digest(seen["output"].grad)]
    assert gradient.cause == given.index
    # What a container returns is what its last child did.
    assert run.ops("module:forward", module="rest")[0].digests == given.digests
    assert run.ops("module:gradient", module="rest")[0].digests == gradient.digests


def test_nothing_is_changed(record):
    class Count(TorchDispatchMode):
        ops = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.ops += 1
            return func(*args, **(kwargs or {}))

    def counted():
        Count.ops = 0
        with Count():
            found = learn()
        return found, Count.ops, _get_current_dispatch_mode()

    plain, ops, _ = counted()
    run = record(counted, level="modules")
    assert run.result[1:] == (ops, None)
    assert all(torch.equal(plain[name], run.result[0][name]) for name in plain)


def test_parameters_and_inputs_are_events_as_ever(record):
    ops, modules = record(learn), record(learn, level="modules")
    assert modules.ops("param:weight") != []
    for op in ("param:weight", "param:bias", "inputs:Net", "seed:torch.manual_seed"):
        assert [(e.key, e.digests) for e in modules.ops(op)] == [
            (e.key, e.digests) for e in ops.ops(op)
        ]


def test_a_recompute_is_told_apart(record):
    def work():
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        checkpoint(net, torch.ones(2, 3, requires_grad=True), use_reentrant=True).sum().backward()

    run = record(work, level="modules")
    once, again = run.ops("module:forward", module="0")
    assert (once.phase, once.recompute) == ("forward", False)
    assert (again.phase, again.recompute) == ("backward", True)
    assert again.digests == once.digests
    assert len(run.ops("module:gradient", module="0")) == 1


def test_a_module_called_twice_and_one_that_returns_several(record):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 3)

        def forward(self, x):
            y, state = self.lstm(x)
            return {"y": self.lstm(y, state)[0], "size": 3}

    run = record(lambda: Twice()(torch.ones(2, 1, 3))["y"].sum().backward(), level="modules")
    first, second = run.ops("module:forward", module="lstm")
    assert (first.call_index, second.call_index) == (0, 1)
    assert [name for *_, name in first.outputs] == ["0", "1.0", "1.1"]
    assert [name for *_, name in run.ops("module:forward", module="")[0].outputs] == ["y"]
    # One event for each tensor that has a gradient, as it arrives.
    assert [e.outputs[0][3] for e in run.ops("module:gradient", module="lstm")][:1] == ["0"]


def test_no_tensor_is_kept(record):
    def work():
        net = nn.Linear(2, 2)
        output = net(torch.ones(1, 2))
        kept = weakref.ref(output)
        del output
        return kept

    assert record(work, level="modules").result() is None


def test_inference_and_in_place_changes(record):
    def work():
        net = nn.Sequential(nn.Linear(2, 2))
        with torch.inference_mode():
            net(torch.ones(1, 2))
        changed = net[0](torch.ones(1, 2))
        changed.mul_(2)
        return net.eval()(torch.ones(1, 2))

    run = record(work, level="modules")
    assert len(run.ops("module:forward", module="0")) == 3


def interval(record, after, until, **options):
    return record(learn, level="modules", interval=Interval(after, until), **options)


def key(step, phase, module, op, thread=""):
    return SiteKey(step, phase, module, f"module:{op}", 0, thread)


def read(run):
    """Modules' events, and operators with a digest."""
    return [
        (e.step, e.phase, e.module, e.op)
        for e in run.seen
        if e.kind in {"op", "module"} and any(e.digests)
    ]


def test_the_operators_of_an_interval(record):
    run = interval(
        record, key(1, "forward", "rest.0", "forward"), key(1, "forward", "rest.1", "forward")
    )
    ops = [name for name in read(run) if name[3].startswith("aten.")]
    assert ops == [(1, "forward", "rest.1", "aten.addmm.default")]
    # Those before, in its step, are events without digests: a backward op's forward is among them.
    whole = record(learn)
    noted = [e.key for e in run.seen if e.kind == "op"]
    before = [e.key for e in whole.seen if e.kind == "op" and e.step == 1]
    assert noted == before[: len(noted)]
    (op,) = run.ops("aten.addmm", module="rest.1")
    assert op.digests == whole.ops("aten.addmm", module="rest.1", step=1)[0].digests


def test_an_interval_in_the_backward_knows_the_forward(record):
    run = interval(
        record, key(1, "backward", "head", "gradient"), key(1, "backward", "rest", "gradient")
    )
    ops = [e for e in run.seen if e.kind == "op" and any(e.digests)]
    assert [(e.phase, e.module, e.op) for e in ops] == [
        ("backward", "head", "aten.mm.default"),
        ("backward", "head", "aten.mm.default"),
        ("backward", "head", "aten.sum.dim_IntList"),
        ("backward", "", "aten.mul.Tensor"),
    ]
    by_index = {e.index: e for e in run.seen}
    assert {by_index[e.cause].module for e in ops} == {"head", ""}


def test_an_interval_across_a_step(record):
    run = interval(
        record, key(0, "backward", "first", "gradient"), key(1, "forward", "first", "forward")
    )
    ops = [name for name in read(run) if name[3].startswith("aten.")]
    assert {step for step, *_ in ops} == {0, 1}
    assert ops[-1] == (1, "forward", "first", "aten.addmm.default")
    assert ops[0][:2] == (0, "backward")


def test_an_interval_from_the_begin(record):
    until = SiteKey(0, "weights", "first", "param:weight", 0)
    run = interval(record, None, until)
    ops = [name[3] for name in read(run) if name[3].startswith("aten.")]
    assert ops == ["aten.uniform_.default"] * 6 + ["aten.randn.default"]


def test_an_optimizers_operators_in_an_interval(record):
    until = SiteKey(0, "weights", "first", "param:bias", 1)
    run = interval(record, key(0, "backward", "first", "gradient"), until, optimizer_ops=True)
    inside = [name for name in read(run) if name[1] == "optimizer"]
    assert {op for *_, op in inside} == {"aten.add_.Tensor"}
    assert {module for _, _, module, _ in inside} == {"first", "rest.1", "head"}


@pytest.mark.parametrize("thread", ["1", "2"])
def test_an_interval_of_another_thread(record, thread):
    import threading

    def work():
        def task():
            net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
            net(torch.ones(1, 2))

        for _ in range(2):
            each = threading.Thread(target=task)
            each.start()
            each.join()

    until = key(0, "forward", "1", "forward", thread)
    after = key(0, "forward", "0", "forward", thread)
    run = record(work, level="modules", interval=Interval(after, until))
    assert {e.thread for e in run.ops("aten.tanh")} == {thread}


def test_what_the_graphs_of_a_compiled_part_return_is_no_modules_output(record):
    def work(*, compiled):
        torch.manual_seed(3)
        torch._dynamo.reset()
        net = Net()
        if compiled:
            net.forward = torch.compile(net.forward, backend="aot_eager")
        net(torch.randn(5, 4)).square().mean().backward()
        torch._dynamo.reset()

    eager = record(lambda: work(compiled=False), level="modules")
    compiled = record(lambda: work(compiled=True), level="modules")
    # A graph also returns what its backward needs: its first call is not the module's.
    (expected,) = [e for e in eager.seen if (e.module, e.op) == ("", "module:forward")]
    (found,) = [e for e in compiled.seen if e.op == "module:forward"]
    assert (found.key, found.outputs) == (expected.key, expected.outputs)
