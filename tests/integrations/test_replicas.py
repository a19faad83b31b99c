"""Whether ranks hold the same tensors: which differ, on which ranks, told alike on all of them."""

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
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import repro_audit as ra
from repro_audit.errors import UnsupportedTensorError, UsageError

RANKS = 3
Started = Callable[..., list[dict[str, Any]]]


def told(call: Any) -> Any:
    """What a check says, as every rank must say it."""
    try:
        return call()
    except ra.ReplicaDriftError as error:
        return {"said": str(error), "tensors": error.tensors, "ranks": error.ranks}
    except UnsupportedTensorError as error:
        return {"unsupported": str(error)}
    except UsageError as error:
        return {"usage": str(error)}


def check_all(rank: int) -> dict[str, Any]:
    """Each case by its name, seen by one rank."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    parallel = nn.parallel.DistributedDataParallel(model)
    found: dict[str, Any] = {}
    for step in range(2):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step * RANKS + rank))
        optimizer.zero_grad()
        parallel(x).square().sum().backward()
        optimizer.step()
    found["trained"] = told(lambda: ra.check_replicas(parallel, optimizer))
    found["buffers"] = told(lambda: ra.check_replicas(parallel, buffers=True))
    if rank == 1:
        with torch.no_grad():
            model[2].weight[0, 0] = torch.nextafter(model[2].weight[0, 0], torch.tensor(9.0))
    found["one-ulp"] = told(lambda: ra.check_replicas(model))
    found["state"] = told(lambda: ra.check_replicas(optimizer))
    pair = dist.new_group([0, 2])
    if rank != 1:
        found["group"] = told(lambda: ra.check_replicas(model, group=pair))
    each = {"a": torch.tensor(0.0 if rank else -0.0), "b": torch.arange(3.0) + rank}
    found["all-differ"] = told(lambda: ra.check_replicas(each))
    shaped = {"a": torch.zeros(2 if rank == 2 else 3)}
    found["other-shape"] = told(lambda: ra.check_replicas(shaped))
    mesh = init_device_mesh("cpu", (RANKS,))
    halves = {"x": distribute_tensor(torch.arange(6.0), mesh, [Shard(0)])}
    found["sharded"] = told(lambda: ra.check_replicas(halves))
    whole = {"x": distribute_tensor(torch.arange(6.0), mesh, [Replicate()])}
    found["replicated"] = told(lambda: ra.check_replicas(whole))
    late = torch.optim.AdamW(model.parameters())
    if rank != 1:
        late.step()
    found["never-stepped"] = told(lambda: ra.check_replicas(late))
    deep = {"model": {"weights": [torch.zeros(2), torch.full((2,), float(rank))]}}
    found["nested"] = told(lambda: ra.check_replicas(deep))
    rated = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1 + rank), foreach=False)
    found["rate"] = told(lambda: ra.check_replicas(rated))
    found["collide"] = told(lambda: ra.check_replicas({1: torch.zeros(1), "1": torch.ones(1)}))
    one = torch.eye(3).to_sparse() if rank == 1 else torch.eye(3)
    found["sparse"] = told(lambda: ra.check_replicas({"x": one}))
    found["none"] = told(lambda: ra.check_replicas({}))
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, started: Started) -> list[dict[str, Any]]:
    """What each rank saw."""
    return started(__file__, tmp_path_factory.mktemp("ranks"), RANKS)


def test_replicas_agree_and_are_counted(seen: list[dict[str, Any]]) -> None:
    # Six parameters, and three tensors that the optimizer keeps for each.
    assert [rank["trained"] for rank in seen] == [24] * RANKS


def test_buffers_of_parallel_ranks_are_their_own(seen: list[dict[str, Any]]) -> None:
    assert set(seen[0]["buffers"]["tensors"]) == {
        "module.1.running_mean",
        "module.1.running_var",
    }


def test_one_bit_on_one_rank_is_named_alike_on_all(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["one-ulp"] == {
        "said": "1 of 6 tensors are not the same on all 3 ranks: rank 1 holds another 2.weight. "
        "Save no checkpoint of them; `repro-audit run` of a short run tells where ranks part",
        "tensors": ["2.weight"],
        "ranks": [1],
    }
    assert all(rank["one-ulp"] == seen[0]["one-ulp"] for rank in seen)


def test_what_an_optimizer_keeps_is_its_own(seen: list[dict[str, Any]]) -> None:
    assert [rank["state"] for rank in seen] == [18] * RANKS


def test_a_group_of_ranks_may_be_asked_for(seen: list[dict[str, Any]]) -> None:
    assert (seen[0]["group"], seen[2]["group"]) == (6, 6)


def test_where_most_agree_the_others_are_named(seen: list[dict[str, Any]]) -> None:
    # Of `a` rank 0 has the other zero; of `b` each has its own, and the first counts as right.
    assert seen[2]["all-differ"]["tensors"] == ["a", "b"]
    assert seen[2]["all-differ"]["ranks"] == [0, 1, 2]


def test_tensors_of_another_shape_are_no_replicas(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["other-shape"]["said"].startswith(
        "rank 2 holds tensors of other names, dtypes or shapes than most of the 3 ranks"
    )
    assert [rank["other-shape"]["tensors"] for rank in seen] == [["a"]] * RANKS
    assert seen[0]["other-shape"]["ranks"] == [2]


def test_a_rank_without_what_others_keep_is_named(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["never-stepped"]["ranks"] == [1]
    assert "state.0.exp_avg" in seen[0]["never-stepped"]["tensors"]
    assert seen[1]["never-stepped"]["tensors"] == []


def test_tensors_are_found_however_deep_they_are(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["nested"]["tensors"] == ["model.weights.1"]
    assert seen[0]["rate"]["tensors"] == ["group.0.lr"]


def test_nothing_is_no_agreement(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["none"]["usage"].startswith("there is nothing to compare")
    assert seen[0]["collide"]["usage"] == "two tensors are called 1; name them apart"


def test_no_rank_waits_for_one_that_cannot_take_part(seen: list[dict[str, Any]]) -> None:
    assert "sparse" in seen[1]["sparse"]["unsupported"]
    for rank in (0, 2):
        assert seen[rank]["sparse"]["usage"].startswith("rank 1 could not take part")


def test_of_distributed_tensors_the_parts_are_compared(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["sharded"]["tensors"] == ["x"]
    assert seen[1]["replicated"] == 1


def test_without_a_process_group_there_are_no_replicas() -> None:
    with pytest.raises(UsageError, match=r"init_process_group\(\) first"):
        ra.check_replicas(nn.Linear(2, 2))


def main() -> None:
    rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    (folder / f"{rank}.json").write_text(json.dumps(check_all(rank)))
    dist.barrier()
    # Gloo aborts a process that is still there when another has left.
    os._exit(0)


if __name__ == "__main__":
    main()
