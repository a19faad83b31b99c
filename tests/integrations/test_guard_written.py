"""What a step writes past autograd's count of it, and what a guard may write itself."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import repro_audit as ra
from repro_audit.errors import UnsupportedTensorError, UsageError

from ..wrapping import Wrapping


def bits(model: nn.Module) -> str:
    return ra.fingerprint(model).digest


class Averaged(nn.Module):
    """A network and another that follows it, which a step writes in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.follower = copy.deepcopy(self.net[0]).requires_grad_(False)

    def step(self) -> torch.Tensor:
        self.zero_grad()
        loss = self.net(torch.rand(4, 4)).square().mean()
        loss.backward()
        for own, other in zip(self.follower.parameters(), self.net[0].parameters(), strict=True):
            if self.how == "data":
                own.data.mul_(0.9).add_(other.data, alpha=0.1)
            elif self.how == "replaced":
                own.data = own.data * 0.9 + other.data * 0.1
            elif self.how == "counted":
                with torch.no_grad():
                    own.lerp_(other, 0.1)
            else:
                other.data -= 0.1 * other.grad
        return loss

    def state(self) -> list[object]:
        gradients = [None if p.grad is None else p.grad.tolist() for p in self.parameters()]
        return [bits(self), gradients, torch.get_rng_state().tolist()]


def made(how: str) -> Averaged:
    torch.manual_seed(0)
    return Averaged(how)


@pytest.mark.parametrize(
    ("how", "written"),
    [
        ("data", "follower"),
        ("replaced", "follower"),
        ("counted", "follower"),
        ("descended", r"net\.0"),
    ],
)
def test_a_step_that_writes_parameters_is_refused(how: str, written: str) -> None:
    model = made(how)
    guard = ra.Guard(model, every=2)
    guard(model.step)
    with pytest.raises(UsageError, match=rf"changes parameters \({written}.*after guard\(step\)"):
        guard(model.step)
    # No part of it is of before the step, and none of a second call.
    state = model.state()
    plain = made(how)
    for _ in range(2):
        plain.step()
    assert plain.state() == state


def test_a_parameter_that_a_replay_alone_writes_is_told_of() -> None:
    model = nn.Linear(4, 4)
    guard = ra.Guard(model, every=2)
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        if len(calls) % 3 == 0:
            model.bias.data += 1

    guard(step)
    with pytest.raises(UsageError, match=r"changes parameters \(bias\)"):
        guard(step)
    assert len(calls) == 3


class Scaled(nn.Module):
    """Saves a buffer for its backward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4).eval()
        # One that no comparison of numbers finds to be as it was.
        self.register_buffer("scale", torch.tensor([2.0, -0.0, float("nan"), 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)) * self.scale


def adversaries(every: int | None, touch: Callable[[Scaled], object]) -> str:
    """A backward each time through a graph that was made before the step."""
    torch.manual_seed(0)
    generator, critic = Scaled(), nn.Linear(4, 1)
    both = nn.ModuleList([generator, critic])
    guard = (lambda step: step()) if every is None else ra.Guard(both, every=every)
    for _ in range(4):
        fake = generator(torch.randn(2, 4))

        def step(fake: torch.Tensor = fake) -> None:
            critic(fake.detach()).sum().backward()
            touch(generator)

        guard(step)
        critic(fake).sum().backward()
    return bits(both)


@pytest.mark.parametrize(
    "touch", [lambda model: None, lambda model: model.scale.data.mul_(2)], ids=["read", "written"]
)
def test_a_graph_from_before_the_step_stays_whole(touch: Callable[[Scaled], object]) -> None:
    assert adversaries(2, touch) == adversaries(None, touch)


def test_a_buffer_written_after_it_was_saved_is_still_told_of() -> None:
    for every in (None, 2):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            adversaries(every, lambda model: model.scale.mul_(2))


class Queue(nn.Module):
    """Keeps what it saw in buffers that a step may replace under their names."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(1, 4))
        with torch.inference_mode():
            self.register_buffer("unwatched", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "replaced":
            self.seen.data = torch.cat([self.seen, x])
        elif self.how == "resized":
            rows = len(self.seen)
            self.seen.resize_(rows + 1, 4)[rows] = x[0]
        elif self.how == "shaped":
            self.seen.data = self.seen.data.t().contiguous()
        else:
            with torch.inference_mode():
                self.unwatched.mul_(2)
        return self.linear(x) * self.seen.mean() + self.unwatched.clone()


@pytest.mark.parametrize("how", ["replaced", "resized", "shaped", "inference"])
def test_buffers_get_their_memory_back(how: str) -> None:
    def trained(every: int | None) -> list[object]:
        torch.manual_seed(0)
        model = Queue(how)
        guard = (lambda step: step()) if every is None else ra.Guard(model, every=every)
        for x in torch.randn(5, 2, 4):

            def step(x: torch.Tensor = x) -> torch.Tensor:
                loss = model(x).square().sum()
                loss.backward()
                return loss

            guard(step)
        return [bits(model), model.linear.weight.grad.tolist(), tuple(model.seen.shape)]

    assert trained(1) == trained(None)


def test_a_model_of_inference_mode_is_guarded() -> None:
    with torch.inference_mode():
        teacher = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    student = nn.Linear(4, 4)
    guard = ra.Guard(nn.ModuleList([teacher, student]), every=1)
    calls: list[int] = []

    def step() -> None:
        with torch.inference_mode():
            wanted = teacher(torch.ones(2, 4))
            if len(calls) == 3:
                teacher[0].weight.mul_(2)
        calls.append(1)
        (student(torch.ones(2, 4)) - wanted.clone()).square().sum().backward()

    guard(step)
    guard(step)
    assert len(calls) == 3
    with pytest.raises(UsageError, match=r"changes parameters \(0\.0\.weight\)"):
        guard(step)


ODD = {
    "quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
    "layout torch._mkldnn": lambda: torch.ones(3).to_mkldnn(),
    "dtype torch.bits8": lambda: torch.empty(3, dtype=torch.bits8),
    "dtype torch.int4": lambda: torch.empty(3, dtype=torch.int4),
    "dtype torch.uint1": lambda: torch.empty(3, dtype=torch.uint1),
    "Wrapping without storage": lambda: Wrapping(torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore")  # torch deprecates its quantized tensors
@pytest.mark.parametrize("kind", ODD)
def test_what_has_no_bits_is_refused_at_once(kind: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    guard = ra.Guard(model)
    calls: list[int] = []

    def step() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"odd": ODD[kind]()}

    with pytest.raises(UnsupportedTensorError, match=rf"returned value\.odd cannot.*{kind}.*step"):
        guard(step)
    assert len(calls) == 1
    model[0].register_buffer("odd", ODD[kind]())
    with pytest.raises(UnsupportedTensorError, match=rf"model's 0\.odd cannot.*{kind}.*ModuleList"):
        ra.Guard(model)


@pytest.mark.filterwarnings("ignore")  # nested tensors of this layout are a prototype
def test_nested_and_lazy_buffers_are_guarded() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.Linear(4, 2))
    model.register_buffer("rows", torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]))
    guard = ra.Guard(model, every=1)
    guard(lambda: None)
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        model.rows.mul_(2)
        model(torch.ones(3, 4)).sum().backward()

    guard(step)
    assert (len(calls), model[0].num_batches_tracked.item()) == (1, 1)
    guard(step)
    assert (len(calls), model[0].num_batches_tracked.item()) == (3, 2)
    assert [row.unique().tolist() for row in model.rows.unbind()] == [[4.0], [4.0]]


def test_a_parameter_without_bits_counts_by_its_version() -> None:
    model = nn.Linear(2, 2)
    model.quantized = nn.Parameter(Wrapping(torch.ones(3)), requires_grad=False)
    guard = ra.Guard(model, every=1)
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        model(torch.ones(1, 2)).sum().backward()
        if len(calls) > 3:
            model.bias.data += 1

    guard(step)
    guard(step)
    assert len(calls) == 3
    with pytest.raises(UsageError, match=r"changes parameters \(bias\)"):
        guard(step)
