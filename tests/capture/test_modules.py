"""Which module an op belongs to: hooks of its own, roots that hold earlier ones, graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace
from torch.nn.utils import parametrize


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return self.head(self.inner(x) * 2)


def places(run, op):
    return [(event.phase, event.module) for event in run.ops(op)]


def test_a_modules_own_hooks_belong_to_it(record):
    def work():
        net, probe = Net(), nn.Linear(4, 4)
        net.inner.register_forward_pre_hook(lambda module, args: args[0].sin())
        net.inner.register_forward_hook(lambda module, args, output: output.cos())
        # A hook that calls a module, which has a hook too.
        probe.register_forward_hook(lambda module, args, output: output.exp())
        net.head.register_forward_hook(lambda module, args, output: probe(output).neg())
        net.register_forward_hook(lambda module, args, output: output.abs())
        for _ in range(2):
            net(torch.ones(1, 4)).sum()

    run = record(work)
    assert places(run, "aten.sin") == [("forward", "inner")] * 2
    assert places(run, "aten.cos") == [("forward", "inner")] * 2
    assert places(run, "aten.mul") == [("forward", "")] * 2
    assert places(run, "aten.tanh") == [("forward", "head.1")] * 2
    assert places(run, "aten.exp") == [("forward", "head.Linear")] * 2
    assert places(run, "aten.neg") == [("forward", "head")] * 2
    assert places(run, "aten.abs") == [("forward", "")] * 2
    assert run.recorder.steps == 2


def test_a_modules_backward_hooks_belong_to_it(record):
    def work():
        net = Net()
        net.inner.register_full_backward_hook(lambda module, into, outof: None)
        net.head.register_full_backward_hook(lambda module, into, outof: (into[0].sin(),))
        net.head.register_full_backward_pre_hook(lambda module, outof: (outof[0].cos(),))
        net(torch.ones(1, 4, requires_grad=True)).sum().backward()

    run = record(work)
    assert places(run, "aten.sin") == [("backward", "head")]
    assert places(run, "aten.cos") == [("backward", "head")]


def test_a_hook_that_raises_leaves_its_module(record):
    def refuse(module, args, output):
        raise ValueError

    def work():
        net = Net()
        handle = net.inner.register_forward_hook(refuse)
        with pytest.raises(ValueError):  # noqa: PT011
            net(torch.ones(1, 4))
        torch.ones(2).exp()
        handle.remove()
        net(torch.ones(1, 4))

    run = record(work)
    assert places(run, "aten.exp") == [("forward", "")]
    assert places(run, "aten.tanh") == [("forward", "head.1")]


def test_parts_called_while_their_model_is_built_have_its_names(record):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Sequential(nn.Identity())

        def forward(self, x):
            return self.scale(x * 2)

    class Built(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            # Registering calls it, before there is a model.
            parametrize.register_parametrization(self.layer, "weight", Doubled())

        def forward(self, x):
            return self.layer(x)

    run = record(lambda: Built()(torch.ones(1, 4)))
    forward = run.ops("aten.mul", phase="forward")
    assert [e.module for e in forward][-1] == "layer.parametrizations.weight.0"
    assert {e.module for e in run.ops("aten.addmm")} == {"layer"}
    assert sorted(e.module for e in run.seen if e.kind == "param")[-2:] == [
        "layer",
        "layer.parametrizations.weight",
    ]


def test_a_model_that_is_wrapped_later_is_recorded_under_its_new_name_alone(record):
    def work():
        net = Net()
        net(torch.ones(1, 4))
        wrapped = nn.Sequential(net)
        wrapped(torch.ones(1, 4))
        return wrapped

    run = record(work)
    assert [e.module for e in run.ops("aten.tanh")] == ["head.1", "0.head.1"]
    # At its first call, at the wrapper's, and at the end once.
    assert [e.module for e in run.ops("param:weight") if "inner" in e.module] == [
        "inner",
        "0.inner",
        "0.inner",
    ]


def test_a_second_model_keeps_its_own_name(record):
    def work():
        for net in (Net(), Net(), nn.Sequential(nn.Tanh())):
            net(torch.ones(1, 4))

    assert [e.module for e in record(work).ops("aten.tanh")] == [
        "head.1",
        "Net.head.1",
        "Sequential.0",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_graphs_that_torch_makes_are_no_modules_of_the_program(record):
    def work():
        torch._dynamo.reset()
        net = Net()
        net.head = torch.compile(net.head, backend="aot_eager")
        net(torch.ones(1, 4)).sum().backward()
        torch._dynamo.reset()

    run = record(work)
    assert {e.module for e in run.ops("aten.tanh")} == {"head"}
    assert {e.module for e in run.ops("aten.tanh_backward")} == {"head"}
    assert not [e.module for e in run.seen if "GraphModule" in e.module or "GraphModule" in e.op]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
def test_graphs_that_torch_calls_begin_no_step(record):
    def work():
        _, push = torch.func.linearize(torch.sin, torch.ones(2))
        for _ in range(3):
            push(torch.ones(2))
        Net()(torch.ones(1, 4))

    run = record(work)
    assert not run.ops("inputs:GraphModule")
    assert {e.module for e in run.ops("aten.tanh")} == {"head.1"}
    assert run.recorder.steps == 1


def test_a_graph_that_the_program_calls_is_its_model(record):
    def work():
        traced = symbolic_trace(Net())
        for _ in range(2):
            traced(torch.ones(1, 4))

    run = record(work)
    assert [e.module for e in run.ops("aten.tanh")] == ["head.1"] * 2
    assert run.recorder.steps == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
def test_a_run_to_trace_a_module_takes_no_name_and_no_step(record):
    def work():
        traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.ones(1, 4))
        net = nn.Sequential(traced, nn.Sigmoid())
        for _ in range(2):
            net(torch.ones(1, 4))

    run = record(work)
    assert [e.module for e in run.ops("aten.sigmoid")] == ["1", "1"]
    assert {e.module for e in run.ops("aten.tanh")} == {"Tanh", "", "0"}
    assert run.recorder.steps == 2


def test_parameters_in_memory_that_processes_share_are_told(record):
    def work(*, share):
        net = nn.Linear(2, 2)
        if share:
            net.share_memory()
        net(torch.ones(1, 2))

    assert [record(lambda s=s: work(share=s)).recorder.shared for s in (False, True)] == [
        False,
        True,
    ]
