"""A guarded step of several ranks: all raise together, and name the rank that saw it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import repro_audit as ra
from repro_audit.errors import UnsupportedTensorError, UsageError

RANKS = 2
Started = Callable[..., list[dict[str, Any]]]
Hook = Callable[[int, torch.Tensor], torch.Tensor]


def told(call: Callable[[], object]) -> Any:
    """What a guard says."""
    try:
        return {"done": call() is not None}
    except ra.SuspectedHardwareError as error:
        said = {"tensors": error.tensors, "odd": error.odd, "ranks": error.ranks}
        return {"suspected": str(error), **said}
    except ra.NotReproducibleError as error:
        return {"varies": str(error), "verdict": error.audit.verdict}
    except UnsupportedTensorError as error:
        return {"unsupported": str(error)}
    except UsageError as error:
        return {"usage": str(error)}


class Case:
    """A training of DistributedDataParallel, which a hook may tamper with."""

    def __init__(self, rank: int, tampered: Hook = lambda call, output: output) -> None:
        torch.manual_seed(0)
        self.rank = rank
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        torch.manual_seed(1 + rank)
        self.calls = 0
        model[0].register_forward_hook(
            lambda module, inputs, output: tampered(self.count(), output)
        )

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(torch.randn(8, 4)).square().mean()
        loss.backward()
        return loss.detach()

    def train(self, every: int | None, steps: int = 5) -> list[object]:
        guard = (lambda step: step()) if every is None else ra.Guard(self.model, every=every)
        for _ in range(steps):
            guard(self.step)
            self.optimizer.step()
        return self.state()

    def state(self) -> list[object]:
        held = [*self.model.state_dict().values(), *(p.grad for p in self.model.parameters())]
        return [[t.tolist() for t in held], torch.get_rng_state().tolist()]


def flipped(at: int) -> Hook:
    def tampered(call: int, output: torch.Tensor) -> torch.Tensor:
        if call != at:
            return output
        output = output.clone()
        output.detach().view(torch.int32)[0, 0] ^= 1 << 22
        return output

    return tampered


def check_all(rank: int) -> dict[str, Any]:
    """Each case by its name, seen by one rank."""
    found: dict[str, Any] = {}
    case = Case(rank)
    found["same"] = [case.train(1) == Case(rank).train(None), case.calls]

    case = Case(rank, flipped(4) if rank else lambda call, output: output)
    case.train(None, 2)
    guard = ra.Guard(case.model, every=2)
    guard(lambda: None)
    before = case.state()
    found["flip"] = told(lambda: guard(case.step))
    found["put-back"] = case.state() == before
    guard(case.step)
    found["again"] = told(lambda: guard(case.step))

    case = Case(rank, (lambda call, output: output + call * 1e-3) if rank else flipped(-1))
    found["vary"] = told(lambda: case.train(2))

    case = Case(rank)

    def steps() -> None:
        case.step()
        if rank:
            case.optimizer.step()

    guard = ra.Guard(case.model, every=1)
    guard(case.step)
    found["steps"] = told(lambda: guard(steps))
    odd = torch.empty(2, dtype=torch.bits8) if rank else torch.empty(2)
    found["unsupported"] = told(lambda: guard(lambda: odd))
    found["after"] = told(lambda: guard(case.step))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    guard = ra.Guard(model, every=1)
    calls = []

    def sharded() -> torch.Tensor:
        calls.append(1)
        loss = model(torch.ones(3, 4) + rank).square().mean()
        loss.backward()
        return loss + (len(calls) == 5 and rank) * 0.5

    for _ in range(2):
        guard(sharded)
        optimizer.step()
        optimizer.zero_grad()
    found["sharded"] = told(lambda: guard(sharded))
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, started: Started) -> list[dict[str, Any]]:
    """What each rank saw."""
    return started(__file__, tmp_path_factory.mktemp("ranks"), RANKS)


def test_a_guarded_training_ends_as_one_that_is_not(seen: list[dict[str, Any]]) -> None:
    assert [rank["same"] for rank in seen] == [[True, 9]] * RANKS


def test_a_bit_that_flips_on_one_rank_is_told_on_all(seen: list[dict[str, Any]]) -> None:
    for rank, place in enumerate(("that of rank 1, named there", ", rank 1")):
        flip = seen[rank]["flip"]
        assert (flip["odd"], flip["ranks"]) == ("second", [0, 1])
        assert "module.3.weight.grad" in flip["tensors"]
        text = " ".join(flip["suspected"].split())
        assert "seen on ranks 0, 1, on rank 1 in more than gradients" in text
        assert f"{place}: two more replays" in text
    assert "the returned value" in seen[1]["flip"]["tensors"]
    assert all(name.endswith(".grad") for name in seen[0]["flip"]["tensors"])


def test_all_ranks_may_go_on(seen: list[dict[str, Any]]) -> None:
    assert [rank["put-back"] for rank in seen] == [True] * RANKS
    assert [rank["again"] for rank in seen] == [{"done": True}] * RANKS


def test_what_varies_on_one_rank_is_told_on_all(seen: list[dict[str, Any]]) -> None:
    assert "same state, on ranks 0, 1; the op is named by rank 1" in seen[0]["vary"]["varies"]
    assert seen[0]["vary"]["verdict"] == "identical"
    assert "forward · module.0 · aten.add" in seen[1]["vary"]["varies"]


def test_no_rank_waits_for_one_that_cannot_take_part(seen: list[dict[str, Any]]) -> None:
    assert "changes parameters (those of rank 1)" in seen[0]["steps"]["usage"]
    assert "changes parameters (module.0.weight" in seen[1]["steps"]["usage"]
    assert seen[0]["unsupported"]["usage"].startswith("rank 1 could not take part")
    assert "bits8" in seen[1]["unsupported"]["unsupported"]
    # The weights of rank 1 were stepped; DistributedDataParallel does not look.
    assert [rank["after"] for rank in seen] == [{"done": True}] * RANKS


def test_sharded_parameters_are_guarded(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["sharded"]["tensors"] == ["the returned value"]
    assert seen[1]["sharded"]["odd"] == "second"
    assert seen[0]["sharded"]["tensors"] == []
    assert [rank["sharded"]["ranks"] for rank in seen] == [[1]] * RANKS
    assert "came out otherwise once, on another rank" in seen[0]["sharded"]["suspected"]


def main() -> None:
    rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    (folder / f"{rank}.json").write_text(json.dumps(check_all(rank)))
    dist.barrier()
    # Gloo aborts a process that is still there when another has left.
    os._exit(0)


if __name__ == "__main__":
    main()
