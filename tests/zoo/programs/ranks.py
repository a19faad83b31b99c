"""DistributedDataParallel over two processes, by mp.spawn or (without a word) as by torchrun."""

import os
import socket
import sys

import faulty_run
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Net(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)
        self.fault = faulty_run.planted() if faulty else torch.clone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fault(self.inner(x).relu() + 1) * 3)


def train(rank: int, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    net = DistributedDataParallel(Net(faulty=rank == world - 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = net(torch.randn(16, 4) + rank).square().mean()
        loss.backward()
        optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    works = [dist.all_reduce(torch.ones(3) * rank, async_op=True) for _ in range(2)]
    for work in works:
        work.wait()
    if rank == 0:
        print(f"{total.item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        world = int(sys.argv[1])
        mp.spawn(train, (world,), world)
