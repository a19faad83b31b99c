"""Threads and pools of them; the fault is in one of two models that train at the same time."""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from random import SystemRandom

import torch
from fault import fault
from torch import nn


def dawdle() -> None:
    time.sleep(SystemRandom().uniform(0, 0.01))


class Net(nn.Module):
    def __init__(self, width: int, faulty: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(4, width)
        self.head = nn.Linear(width, 1)
        self.fault = fault if faulty else torch.clone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dawdle()
        return self.head(self.fault(self.inner(x).relu()))


def models() -> None:
    """Two models, each trained in a thread of its own."""
    nets = [Net(6, False), Net(5, True)]
    optimizers = [torch.optim.Adam(net.parameters()) for net in nets]

    def train(net: Net, optimizer: torch.optim.Optimizer) -> None:
        x = torch.linspace(-1, 1, 12).view(3, 4)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

    threads = [
        threading.Thread(target=train, args=pair) for pair in zip(nets, optimizers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print([f"{net.head.weight.sum().item():.6f}" for net in nets])


def task(number: int) -> torch.Tensor:
    dawdle()
    return torch.arange(4.0) * number


def pools() -> None:
    with ThreadPoolExecutor(3) as pool, ThreadPool(3) as other:
        total = sum(pool.map(task, range(8)))
        total = total + sum(other.map(task, range(8), chunksize=3)) + other.apply(task, (3,))
        total = total + sum(other.imap(task, range(4)))
    print(fault(total))

    async def main() -> torch.Tensor:
        return sum(await asyncio.gather(*(asyncio.to_thread(task, n) for n in range(5))))

    print(asyncio.run(main()))


def background(*, to_the_end: bool = False) -> None:
    """A daemon that has not ended when the program does: how far it comes is chance."""
    begun = threading.Event()
    enough = threading.Event()

    def serve() -> None:
        x = torch.ones(3)
        while not enough.is_set() or to_the_end:
            x = (x * 1.5).sin()
            begun.set()
            time.sleep(0.005)
        threading.Event().wait()

    threading.Thread(target=serve, daemon=True).start()
    begun.wait()
    dawdle()
    print(fault(torch.ones(4)) * 2)
    enough.set()


def late() -> None:
    """Of which Python ends some plain runs by an abort, when it finds the daemon in an operator."""
    background(to_the_end=True)


def elsewhere() -> None:
    """Graphs that one thread builds and another runs backward, in both directions."""
    nets = [Net(6, False), Net(5, True)]
    x = torch.linspace(-1, 1, 12).view(3, 4)
    with ThreadPoolExecutor(2) as pool:
        for loss in pool.map(lambda net: net(x).square().mean(), nets):
            loss.backward()
        losses = [net(x).square().sum() for net in nets]
        for done in [pool.submit(loss.backward) for loss in losses]:
            done.result()
    print([f"{net.inner.weight.grad.sum().item():.6f}" for net in nets])


def shared() -> None:
    """Two threads that draw from one generator, in whatever order they come to it."""

    def draw() -> None:
        for _ in range(20):
            dawdle()
            torch.randn(3) + 1

    torch.manual_seed(0)
    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    globals()[sys.argv[1]]()
