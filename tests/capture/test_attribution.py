"""Steps, phases, module paths, call indices, call sites, and what caused a backward op."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

HERE = Path(__file__).name


class Net(nn.Module):
    """Two layers, the second of them called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))

    def forward(self, x):
        return self.block(self.block(self.first(x)))


def train(steps=2, optimizer=torch.optim.AdamW, **options):
    net = Net()
    updates = optimizer(net.parameters(), **options)
    for _ in range(steps):
        updates.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
        updates.step()
    return net


def test_a_module_called_twice_is_told_apart_by_the_call_index(record):
    calls = [(e.module, e.call_index) for e in record(train).ops("aten.addmm", step=1)]
    assert calls == [("first", 0), ("block.1", 0), ("block.1", 1)]


def test_call_sites_name_the_programs_own_line(record):
    run = record(train)
    lines = Path(__file__).read_text().splitlines()
    forward = next(at for at, line in enumerate(lines, 1) if "self.block(self.block" in line)
    backward = next(at for at, line in enumerate(lines, 1) if ").sum().backward()" in line)
    assert {e.call_site for e in run.ops("aten.addmm")} == {f"{HERE}:{forward}"}
    assert {e.call_site for e in run.seen if e.phase == "backward"} == {f"{HERE}:{backward}"}


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.5  # in a Function


def test_code_that_a_backward_calls_has_its_own_line(record):
    def work():
        net = Net()
        x = net.first(torch.ones(2, 4))
        x.register_hook(lambda gradient: gradient / 3.0)  # in a hook
        Rounded.apply(x).exp().sum().backward()

    run = record(work)
    lines = Path(__file__).read_text().splitlines()
    told = {e.op: e for e in run.seen if e.backward_code}
    assert told.keys() == {"aten.mul.Tensor", "aten.div.Tensor"}
    for op, place in (("mul", "  # in a Function"), ("div", "  # in a hook")):
        line = next(at for at, text in enumerate(lines, 1) if text.endswith(place))
        assert told[f"aten.{op}.Tensor"].call_site == f"{HERE}:{line}"
        assert told[f"aten.{op}.Tensor"].cause is not None
    # What autograd itself calls has the line that asked for it.
    (multiplied,) = (e for e in run.ops("aten.mul.Tensor", phase="backward") if not e.backward_code)
    assert lines[int(multiplied.call_site.split(":")[1]) - 1].endswith(".sum().backward()")


def test_files_that_inductor_writes_are_no_call_sites(record, tmp_path, monkeypatch):
    def generated(place):
        namespace = {}
        text = "import torch\ndef call():\n    return torch.ones(2).exp()\n"
        exec(compile(text, str(place / "graph.py"), "exec"), namespace)
        return namespace["call"]

    def work():
        generated(tmp_path / "ab")()
        generated(tmp_path.parent)()

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    ours, theirs = record(work).ops("aten.exp")
    assert ours.call_site.startswith(f"{HERE}:")
    assert theirs.call_site == f"{tmp_path.parent}/graph.py:3"


def test_backward_ops_belong_to_the_forward_op_that_caused_them(record):
    run = record(train)
    by_index = {e.index: e for e in run.seen}
    assert run.unbound() == []
    matmuls = run.ops("aten.mm", phase="backward", step=0)
    assert [e.module for e in matmuls] == ["block.1", "block.1"] * 2 + ["first"]
    assert {by_index[e.cause].op for e in matmuls} == {"aten.addmm.default"}
    relu = run.ops("aten.threshold_backward", step=0)
    assert {by_index[e.cause].op for e in relu} == {"aten.relu_.default"}


def test_a_gradients_accumulation_belongs_to_its_parameter(record):
    def work():
        net = Net()
        for _ in range(2):
            net(torch.ones(2, 4)).sum().backward()
        bare = nn.Parameter(torch.ones(2))
        updates = torch.optim.SGD([bare])
        for _ in range(2):
            (bare * 2).sum().backward()
            updates.step()
        leaf = torch.ones(2, requires_grad=True)
        (leaf * 2).sum().backward()

    run = record(work)
    by_index = {e.index: e for e in run.seen}
    into = [
        (e.module, by_index[e.cause].op if e.cause is not None else None)
        for e in run.ops("aten.detach", phase="backward")
        if e.cause is None or by_index[e.cause].kind == "param"
    ]
    layers = [("block.1", "param:weight"), ("block.1", "param:bias")]
    layers += [("first", "param:weight"), ("first", "param:bias")]
    # The optimizer's own name for it is known once it has stepped; a leaf of nobody's has none.
    assert sorted(into[:4]) == sorted(layers)
    assert into[4:] == [("", None), ("", None)]
    added = run.ops("aten.add_", phase="backward")
    assert sorted((e.module, by_index[e.cause].op) for e in added) == sorted(
        [*layers, ("", "param:group0.0")]
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recompute_is_marked_and_keeps_its_module(record, reentrant):
    def work():
        net = Net()
        x = torch.ones(2, 4, requires_grad=True)
        checkpoint(net, x * 2, use_reentrant=reentrant).sum().backward()

    run = record(work)
    again = [e for e in run.ops("aten.addmm") if e.recompute]
    assert {e.module for e in again} == {"first", "block.1"}
    assert all(e.phase == "backward" for e in again)
    assert [e for e in run.unbound() if not e.recompute] == []


def custom_function():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

    Square.apply(torch.ones(3, requires_grad=True) * 2).sum().backward()


def double_backward():
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.ones(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    gradient.norm().backward()


def views():
    x = torch.ones(2, 4, requires_grad=True) * 1
    x[:, 0] = 0
    x[1:].mul_(2)
    x.t().relu_()
    x.sum().backward()


def tied():
    table = nn.Embedding(5, 4)
    head = nn.Linear(4, 5, bias=False)
    head.weight = table.weight
    head(table(torch.arange(3))).sum().backward(retain_graph=True)


def recurrent():
    nn.LSTM(3, 4, batch_first=True)(torch.ones(2, 5, 3))[0].sum().backward()


def attention():
    x = torch.ones(2, 5, 8)
    nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x)[0].sum().backward()


def convolution():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(True), nn.MaxPool2d(2))
    net(torch.ones(1, 1, 8, 8)).sum().backward()


def vectorised():
    net = nn.Linear(4, 1)

    def loss(parameters, x):
        return functional_call(net, parameters, (x,)).sum()

    vmap(grad(loss), in_dims=(None, 0))(dict(net.named_parameters()), torch.ones(3, 4))


@pytest.mark.parametrize(
    "work",
    [
        custom_function,
        double_backward,
        views,
        tied,
        recurrent,
        attention,
        convolution,
        vectorised,
    ],
)
def test_no_backward_op_is_left_unbound(record, work):
    run = record(work)
    assert run.seen
    assert run.unbound() == []


def test_a_node_that_no_op_made_belongs_to_the_op_before(record):
    stored, gradient, x = torch.ones(3), torch.ones(3), torch.ones(3, requires_grad=True)

    class Stored(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return stored

        @staticmethod
        def backward(ctx, gradient):
            return (gradient * 2).exp()

    def work():
        x.cos()
        Stored.apply(x).backward(gradient)

    run = record(work)
    (before,) = run.ops("aten.cos")
    made = run.ops("aten.mul", phase="backward") + run.ops("aten.exp", phase="backward")
    assert [e.cause for e in made] == [before.index] * 2


def test_a_part_of_a_model_called_by_itself_keeps_its_path(record):
    def work():
        net = Net()
        net(torch.ones(2, 4))
        net.block(torch.ones(2, 4))

    assert record(work).ops("aten.addmm")[-1].module == "block.1"


def test_a_tensor_with_a_dead_ones_id_is_named(record):
    # Paths that depended on which memory was free made equal runs differ.
    def work():
        for _ in range(50):
            nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()

    owners = [e.module for e in record(work).ops("aten.detach", phase="backward")]
    assert "" not in owners


def test_keyword_inputs_of_the_root_are_its_batch(record):
    class Root(nn.Module):
        def forward(self, x, *, mask):
            return x * mask

    seen = record(lambda: Root()(torch.ones(2), mask=torch.zeros(2)))
    (batch,) = seen.ops("inputs:Root")
    assert [name for *_, name in batch.outputs] == ["0", "mask"]
