"""A step made twice: what differs is found, named, and told apart from what does not recur."""

from __future__ import annotations

import dataclasses
import itertools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import repro_audit as ra
from repro_audit.errors import UnsupportedTensorError, UsageError


def test_one_call_of_so_many_is_checked() -> None:
    made = []
    guard = ra.Guard(nn.Linear(2, 2), every=3)
    for n in range(7):
        assert guard(lambda n=n: made.append(n) or n) == n
    assert made == [0, 1, 2, 2, 3, 4, 5, 5, 6]


class Case:
    """A small training whose layer is tampered with at calls of its own choosing."""

    def __init__(self, tampered: Callable[[int, torch.Tensor], torch.Tensor]) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.guard = ra.Guard(self.model, every=2)
        self.calls = 0
        self.tampered = tampered
        self.model[0].register_forward_hook(self.hook)

    def hook(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.tampered(self.calls, output)

    def step(self) -> dict[str, Any]:
        self.optimizer.zero_grad()
        loss = self.model(torch.randn(8, 4)).square().mean()
        loss.backward()
        return {"loss": loss, "parts": [loss.detach() * 2]}

    def state(self) -> list[object]:
        kept = [entry["momentum_buffer"] for entry in self.optimizer.state.values()]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        held = [*self.model.state_dict().values(), *kept, *gradients, torch.get_rng_state()]
        return [tensor.tolist() for tensor in held]


def flipped(at: int) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """A bit of the layer's output is another at its so-manieth call."""

    def tampered(call: int, output: torch.Tensor) -> torch.Tensor:
        if call != at:
            return output
        output = output.clone()
        output.detach().view(torch.int32)[0, 0] ^= 1 << 20
        return output

    return tampered


@pytest.mark.parametrize(("at", "odd"), [(2, "first"), (3, "second")])
def test_a_bit_that_flips_once_is_suspected_hardware(at: int, odd: str) -> None:
    case = Case(flipped(at))
    case.guard(case.step)
    case.optimizer.step()
    before = case.state()
    with pytest.raises(ra.SuspectedHardwareError) as caught:
        case.guard(case.step)
    error = caught.value
    assert case.state() == before
    assert isinstance(error, ra.NotReproducibleError)
    assert (error.odd, error.ranks) == (odd, ())
    assert {"0.weight.grad", "1.running_mean", "the returned value.loss"} <= set(error.tensors)
    assert "the returned value.parts.0" in error.tensors
    assert not any(name.startswith("generator") for name in error.tensors)
    assert (error.audit.verdict, error.audit.cause.cls) == ("identical", "suspected-hardware")
    text = str(error)
    first, differ, *others = text.splitlines()
    assert first == f"call 2 of Case.step came out otherwise once; the {odd} of two was the odd one"
    assert differ.startswith("  differ  10 of 14 tensors: 0.bias.grad, 0.weight.grad, ")
    assert others[0].startswith(f"  likely  suspected-hardware, cpu of {platform.node()}: two more")
    assert "run `repro-audit screen`" in text
    # The program may go on, and ends as one without the fault.
    case.guard(case.step)
    case.optimizer.step()
    sound = Case(lambda call, output: output)
    for _ in range(2):
        sound.guard(sound.step)
        sound.optimizer.step()
    assert case.state() == sound.state()


def test_an_op_that_varies_is_named_with_its_line() -> None:
    case = Case(lambda call, output: output + call * 1e-3)
    case.guard(case.step)
    before = case.state()
    with pytest.raises(
        ra.NotReproducibleError, match=r"call 2 of Case\.step does not do the same"
    ) as caught:
        case.guard(case.step)
    assert not isinstance(caught.value, ra.SuspectedHardwareError)
    assert case.state() == before
    assert "forward · 0 · aten.add" in str(caught.value)
    line = test_an_op_that_varies_is_named_with_its_line.__code__.co_firstlineno + 1
    assert f"test_guard.py:{line})" in str(caught.value)
    assert caught.value.audit.origin.key.op == "aten.add.Tensor"


def test_what_varies_unseen_is_no_hardware() -> None:
    guard = ra.Guard(nn.Linear(2, 2), every=1)
    times = itertools.count()

    def step() -> torch.Tensor:
        last = torch.zeros(2)
        last.numpy()[0] = next(times)
        return last

    guard(step)
    with pytest.raises(ra.NotReproducibleError, match=r"in what is not seen") as caught:
        guard(step)
    assert not isinstance(caught.value, ra.SuspectedHardwareError)


def test_a_batch_that_the_step_takes_is_told_of() -> None:
    batches = iter(torch.randn(9, 8, 4))
    model = nn.Linear(4, 1)
    guard = ra.Guard(model, every=2)

    def step() -> None:
        model(next(batches)).sum().backward()

    guard(step)
    with pytest.raises(ra.NotReproducibleError, match=r"data · inputs of Linear") as caught:
        guard(step)
    assert "take the batch before the step" in str(caught.value)


def test_a_step_that_steps_is_refused() -> None:
    case = Case(lambda call, output: output)

    def step() -> None:
        case.step()
        case.optimizer.step()

    case.guard(step)
    with pytest.raises(UsageError, match=r"changes parameters \(0\.weight.*after guard\(step\)"):
        case.guard(step)


def test_bad_input_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every=100 checks one"):
        ra.Guard(nn.Linear(2, 2), every=0)
    with pytest.raises(UsageError, match=r"every=1\.5 checks no step"):
        ra.Guard(nn.Linear(2, 2), every=1.5)
    with pytest.raises(UsageError, match="a int is no model"):
        ra.Guard(3)
    with pytest.raises(UsageError, match="'a' is no seed"):
        ra.seed_everything("a")
    case = Case(lambda call, output: output)
    with ra.record(tmp_path / "a.audit"):
        case.guard(case.step)
        with pytest.raises(UsageError, match="a recording is under way"):
            case.guard(case.step)
    case.guard(case.step)
    with pytest.raises(UnsupportedTensorError, match="Fingerprint"):
        case.guard(lambda: torch.empty(2, dtype=torch.bits8))
    case.guard(case.step)

    with pytest.raises(UsageError, match="its body did not run"):
        case.guard(lambda: (case.step() for _ in range(1)))


def test_an_exception_is_the_step_s_own() -> None:
    case = Case(lambda call, output: output)
    case.guard(case.step)
    before = case.state()

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        case.guard(fails)
    assert not hasattr(caught.value, "__notes__")
    once = iter([case.step])

    def only_once() -> None:
        next(once)()

    case.guard(case.step)
    with pytest.raises(StopIteration) as stopped:
        case.guard(only_once)
    assert stopped.value.__notes__[0].startswith("Raised in a replay of the step")
    assert case.state() != before


def test_what_a_failed_replay_changed_is_put_back() -> None:
    case = Case(lambda call, output: output if call < 3 else output[:, :0])
    case.guard(case.step)
    case.optimizer.step()
    before = case.state()
    with pytest.raises(RuntimeError):
        case.guard(case.step)
    assert case.state() == before


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    cache: tuple[torch.Tensor, ...]


def test_tensors_are_found_in_what_is_returned() -> None:
    guard = ra.Guard(nn.Linear(2, 2), every=1)
    guard(lambda: None)
    times = itertools.count()

    def step() -> Output:
        last = torch.zeros(2)
        last.numpy()[0] = next(times) == 1
        return Output(torch.ones(2), (torch.ones(3), last))

    with pytest.raises(ra.SuspectedHardwareError) as caught:
        guard(step)
    assert caught.value.tensors == ("the returned value.cache.1",)
