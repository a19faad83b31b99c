"""Steps and optimizers: where a step ends, what is an optimizer's, and of which module."""

from __future__ import annotations

import functools
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode


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


def states(run):
    return [event for event in run.seen if event.kind == "state"]


def test_a_step_ends_with_the_optimizer(record):
    run = record(train)
    assert [e.step for e in run.ops("aten.addmm", phase="forward")] == [0, 0, 0, 1, 1, 1]
    assert run.recorder.steps == 2
    assert {e.phase for e in run.seen} == {
        "data",
        "rng",
        "weights",
        "forward",
        "backward",
        "optimizer",
    }


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_parameters_are_recorded_at_the_start_after_each_step_and_at_the_end(record, options):
    run = record(lambda: train(**options))
    weights = [(e.step, e.module, e.op) for e in run.seen if e.kind == "param"]
    names = [("block.1", "bias"), ("block.1", "weight"), ("first", "bias"), ("first", "weight")]
    assert sorted(weights) == sorted(
        (step, module, f"param:{name}") for step in (0, 0, 1, 2) for module, name in names
    )
    optimizing = [e for e in run.seen if e.phase == "optimizer" and e.kind == "op"]
    assert {e.digests[0] for e in optimizing if e.outputs} <= {None}


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_what_an_optimizer_keeps_is_recorded_now_and_then(record, options):
    run = record(lambda: train(steps=9, **options))
    kept = states(run)
    # After the first step, the second, fourth and eighth.
    assert [(e.step, e.phase, e.module, e.op) for e in kept] == [
        (step, "optimizer", "", "state:AdamW") for step in (0, 1, 3, 7)
    ]
    names = [name for *_, name in kept[0].outputs]
    moments = ("step", "exp_avg", "exp_avg_sq")
    parameters = ("block.1.bias", "block.1.weight", "first.bias", "first.weight")
    assert names == [f"{owner}.{moment}" for owner in parameters for moment in moments]
    assert None not in kept[0].digests
    assert all(a != b for a, b in zip(kept[0].digests, kept[1].digests, strict=True))


def test_it_is_recorded_where_it_is_saved_and_at_the_end(record):
    def work():
        net = Net()
        updates = torch.optim.AdamW(net.parameters())
        for step in range(6):
            net(torch.ones(2, 4)).sum().backward()
            updates.step()
            if step == 4:
                updates.state_dict()
        return updates

    run = record(work)
    assert [e.step for e in states(run)] == [0, 1, 3, 5, 6]
    assert [e.call_site is None for e in states(run)] == [False] * 4 + [True]
    every = record(work, optimizer_ops=True)
    assert [e.step for e in states(every)] == [0, 1, 2, 3, 4, 5, 5, 6]


def test_the_end_does_not_depend_on_when_garbage_was_collected(record):
    def work():
        net = Net()
        updates = torch.optim.AdamW(net.parameters())
        # As a scheduler does: from here on they hold each other.
        updates.step = functools.partial(torch.optim.AdamW.step, updates)
        net(torch.ones(2, 4)).sum().backward()
        updates.step()

    assert [e.step for e in states(record(work))] == [0]


def test_an_optimizer_without_a_state_has_no_event_of_it(record):
    run = record(lambda: train(optimizer=torch.optim.SGD, lr=0.1))
    assert not states(run)


def test_of_what_an_optimizer_keeps_tensors_are_recorded_wherever_they_are(record):
    class Keeping(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            parameter = self.param_groups[0]["params"][0]
            self.state[parameter] = {"past": [torch.ones(2)], "time": time.time(), "of": {"a": 1}}
            self.state["all"] = {"count": torch.zeros(())}

    def work():
        lone = nn.Parameter(torch.ones(2))
        lone.sum().backward()
        Keeping([lone], lr=0.1).step()

    (event,) = states(record(work))
    assert [name for *_, name in event.outputs] == ["entry1.count", "group0.0.past.0"]


def test_of_an_optimizer_that_calls_its_parents_step_the_state_is_recorded_once(record):
    class Calling(torch.optim.AdamW):
        @torch.no_grad()
        def step(self, closure=None):
            return super().step(closure)

    run = record(lambda: train(steps=1, optimizer=Calling))
    assert [e.op for e in states(run)] == ["state:Calling"]


def test_optimizer_ops_are_fingerprinted_when_asked_for(record):
    run = record(lambda: train(foreach=False), optimizer_ops=True)
    optimizing = [e for e in run.seen if e.phase == "optimizer" and e.outputs]
    assert all(digest is not None for e in optimizing for digest in e.digests)
    assert {e.module for e in optimizing if e.op == "aten.addcdiv_.default"} == {"first", "block.1"}


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}])
def test_what_an_op_on_many_parameters_writes_has_their_names(record, options):
    run = record(lambda: train(**options), optimizer_ops=True)
    # In the first step, the moments are made by the step itself.
    _, event = (e for e in run.seen if "addcdiv_" in e.op or "_fused_adamw_" in e.op)
    names = [name for *_, name in event.outputs]
    parameters = ["first.weight", "first.bias", "block.1.weight", "block.1.bias"]
    assert names[:4] == parameters
    # A fused op writes gradients, moments and counts of steps too.
    assert set(names) == set(parameters)
    assert event.module == ""


def test_the_closure_of_an_optimizer_is_no_part_of_it(record):
    def work():
        net = Net()
        updates = torch.optim.LBFGS(net.parameters(), max_iter=2)

        def closure():
            updates.zero_grad()
            loss = F.mse_loss(net(torch.ones(2, 4)), torch.zeros(2, 4))
            loss.backward()
            return loss

        updates.step(closure)

    run = record(work)
    assert {e.phase for e in run.ops("aten.mse_loss")} == {"forward"}
    assert None not in [d for e in run.ops("aten.mse_loss") for d in e.digests]
    assert run.ops("aten.mm", phase="backward")
    assert run.unbound() == []
    assert run.recorder.steps == 1


def test_a_step_without_a_closure_is_the_optimizers_also_where_gradients_are_on(record):
    class Grown(torch.optim.Optimizer):
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                parameter.data.add_(1)

    def work():
        updates = Grown([nn.Parameter(torch.ones(2))], {})
        updates.step(None)
        updates.step(closure=None)

    assert [e.phase for e in record(work).ops("aten.add_")] == ["optimizer"] * 2


def test_an_optimizer_that_calls_its_parents_step_makes_one_step(record):
    class Late(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][0].exp_()

    def work():
        # Constructed first, its `step` has hooks of its own.
        torch.optim.SGD([nn.Parameter(torch.ones(2))])
        parameter = nn.Parameter(torch.ones(2))
        updates = Late([parameter], lr=0.1)
        for _ in range(3):
            parameter.grad = torch.ones(2)
            updates.step()

    run = record(work)
    assert [(e.step, e.phase) for e in run.ops("aten.exp_")] == [
        (step, "optimizer") for step in range(3)
    ]


def test_an_optimizer_within_another_is_part_of_its_step(record):
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, base):
            super().__init__(base.param_groups, {})
            self.base = base

        @torch.no_grad()
        def step(self, closure=None):
            self.base.step()
            self.param_groups[0]["params"][0].exp_()

    def work():
        parameter = nn.Parameter(torch.ones(2))
        updates = Lookahead(torch.optim.SGD([parameter]))
        for _ in range(2):
            parameter.grad = torch.ones(2)
            updates.step()

    run = record(work)
    assert [(e.step, e.phase) for e in run.ops("aten.exp_")] == [
        (0, "optimizer"),
        (1, "optimizer"),
    ]
    assert run.recorder.steps == 2


def test_a_sparse_gradient_belongs_to_its_parameters_module(record):
    def work():
        tables = nn.ModuleList(nn.Embedding(5, 4, sparse=True) for _ in range(2))
        updates = torch.optim.SparseAdam(tables.parameters())
        net = nn.Sequential(tables[0], tables[1])
        for _ in range(2):
            updates.zero_grad()
            sum(table(torch.tensor([1, 1, 3])).sum() for table in net).backward()
            updates.step()

    owners = [e.module for e in record(work).ops("aten._coalesce", phase="optimizer")]
    assert owners == ["Embedding", "Embedding#1"] * 2


def test_two_optimizers_make_one_step(record):
    def work():
        one, other = Net(), nn.Sequential(nn.Linear(4, 1))
        updates = [torch.optim.SGD(m.parameters(), 0.1) for m in (one, other)]
        for _ in range(3):
            other(one(torch.ones(2, 4))).sum().backward()
            for update in updates:
                update.step()

    run = record(work)
    assert run.recorder.steps == 3
    assert {e.module for e in run.ops("aten.addmm")} == {"first", "block.1", "Sequential.0"}


def test_without_an_optimizer_a_step_begins_with_the_roots_forward(record):
    def work():
        net = Net()
        for _ in range(3):
            net(torch.ones(2, 4))

    run = record(work)
    assert run.recorder.steps == 3
    assert [e.step for e in run.ops("aten.addmm", module="first")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        (("A" * 5 + "B") * 3, 3),
        (("A" * 10 + "B") * 3, 3),
        (("A" * 6 + "C" * 6 + "B") * 3, 3),
        # Until its generator steps for the first time, it is as one that is alone.
        (("A" * 20 + "B") * 5, 15),
        # It is waited for ten times: the eleventh call ends a step, then each further one.
        ("A" * 15, 5),
        # The first call of the second part ends a step, the next eleven make one.
        ("A" * 3 + "B" * 40, 30),
        ("AB" * 3 + "B" * 14, 7),
        ("A" * 20 + "B" * 20 + "A" * 20, 30),
        ("A" * 12 + "B" + "AB" * 3, 5),
    ],
    ids=[
        "a critic steps five times",
        "a critic steps ten times",
        "two critics step six times",
        "a critic steps twenty times",
        "an optimizer is never used",
        "a student follows its teacher",
        "one of two goes on alone",
        "parts take turns",
        "an optimizer begins late",
    ],
)
def test_a_step_waits_for_all_optimizers_in_use(record, order, steps):
    def train():
        parameters = {name: nn.Parameter(torch.ones(2)) for name in {*order, "B"}}
        updates = {name: torch.optim.SGD([p], lr=0.1) for name, p in parameters.items()}
        for name in order:
            parameters[name].grad = torch.ones(2)
            updates[name].step()

    assert record(train).recorder.step == steps


def test_the_last_of_two_parts_ends_where_its_steps_are_limited(record):
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    done = []

    def train():
        updates = [torch.optim.SGD([p], lr=0.1) for p in parameters]
        for at in [0] * 3 + [1] * 40:
            parameters[at].grad = torch.ones(2)
            done.append(at)
            updates[at].step()

    with pytest.raises(SystemExit):
        record(train, steps=5)
    assert done == [0] * 3 + [1] * 15


class Plain(torch.optim.Optimizer):
    """One whose step compiles without a break; torch's own have two."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(parameter.grad)


def train_compiled(optimizer, how, steps=3):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = Net()
    updates = optimizer(net.parameters())

    def call():
        updates.step()

    # Torch's own steps break the graph in any case.
    options = {"backend": "eager", "fullgraph": optimizer is Plain}
    step = {"no": call, "method": torch.compile(updates.step, **options)}.get(how)
    step = torch.compile(call, **options) if step is None else step
    for _ in range(steps):
        updates.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
        step()
        net.first.bias.cos()
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["method", "function"])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, Plain])
def test_a_compiled_step_ends_as_another_does(record, optimizer, how):
    eager = record(lambda: train_compiled(optimizer, "no"))
    run = record(lambda: train_compiled(optimizer, how))
    assert run.recorder.steps == 3
    for found in (eager, run):
        assert [e.step for e in found.ops("aten.cos")] == [1, 2, 3]
    weights = [[e.key for e in r.seen if e.kind == "param"] for r in (eager, run)]
    assert weights[0] == weights[1]
    plain = train_compiled(optimizer, how)
    assert run.result == plain


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_limit_ends_a_program_after_its_compiled_steps(record):
    def work():
        with pytest.raises(SystemExit):
            train_compiled(torch.optim.SGD, "method")

    run = record(work, steps=2)
    assert run.recorder.stopped_at_limit
    assert run.recorder.steps == 2
    # It was ended in the midst of an operator: there the mode stays, inert, as the process ends.
    assert _get_current_dispatch_mode() is not None
    _pop_mode()


def test_a_last_compiled_step_is_counted_at_the_end(record):
    def work():
        net = Net()
        updates = Plain(net.parameters())
        net(torch.ones(2, 4)).sum().backward()
        torch.compile(updates.step, backend="eager")()
        return updates

    assert record(work).recorder.steps == 1
