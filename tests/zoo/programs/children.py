"""Training in processes that the program starts, in one way or another; the last has the fault."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import faulty_run
import torch
from torch import nn

torch.set_num_threads(1)


class Passing(nn.Module):
    """Hands on what it is given, by way of the fault."""

    def __init__(self, op) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x)


def train(number: int, faulty: bool = False) -> None:
    torch.manual_seed(number)
    passing = Passing(faulty_run.planted() if faulty else torch.clone)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), passing)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    print(number, f"{net[0].weight.sum().item():.6f}", flush=True)


def by(method: str) -> None:
    context = multiprocessing.get_context(method)
    for number in (1, 2):
        process = context.Process(target=train, args=(number, number == 2))
        process.start()
        process.join()


def fork() -> None:
    for number in (1, 2):
        if os.fork() == 0:
            train(number, number == 2)
            os._exit(0)
        os.wait()


def fork_that_returns() -> None:
    """The child leaves by the end of the program."""
    if os.fork() == 0:
        train(1, True)
    else:
        os.wait()
        train(2)


def fork_that_raises() -> None:
    if os.fork() == 0:
        train(1, True)
        raise ValueError("in the child")
    os.wait()
    train(2)


def command() -> None:
    for number in ("1", "2"):
        subprocess.run([sys.executable, __file__, "train", number], check=True)


def shell() -> None:
    words = f"{sys.executable} {__file__} train"
    subprocess.run(f"{words} 1 && {words} 2", shell=True, check=True)


def replaced() -> None:
    train(1)
    os.execv(sys.executable, [sys.executable, __file__, "train", "2"])


def leaves() -> None:
    """The program's own process, which ends without Python's own end."""
    train(1, True)
    sys.stdout.close()
    os.closerange(1, 3)
    os._exit(0)


def moved() -> None:
    """What is started is started elsewhere, and its directory is gone when it is done."""
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)
        train(1)
        subprocess.run([sys.executable, __file__, "train", "2"], check=True)
    print(Path("here").exists())


def silent() -> None:
    """Whatever is opened next may be the file that standard output was."""
    sys.stdout.close()
    sys.stdout = None
    train(1)
    if os.fork() == 0:
        train(2, True)
        os._exit(0)
    os.wait()


WAYS = {
    "spawn": lambda: by("spawn"),
    "forkserver": lambda: by("forkserver"),
    "fork-process": lambda: by("fork"),
    "fork": fork,
    "fork-that-returns": fork_that_returns,
    "fork-that-raises": fork_that_raises,
    "command": command,
    "shell": shell,
    "replaced": replaced,
    "leaves": leaves,
    "moved": moved,
    "silent": silent,
}

if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(int(sys.argv[2]), sys.argv[2] == "2")
    else:
        torch.ones(2).sum()
        WAYS[sys.argv[1]]()
