"""Pools of processes, whose tasks are done by whichever is free; the fault is in one task."""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from random import SystemRandom

import faulty_run
import torch
import torch.multiprocessing

FAULTY = 3


def begin() -> None:
    torch.set_num_threads(1)
    torch.ones(2).sum()


def task(number: int) -> float:
    time.sleep(SystemRandom().uniform(0, 0.05))
    x = torch.full((4,), float(number))
    y = faulty_run.planted()(x) if number == FAULTY else x.clone()
    return float((y * y).sum())


def tensor_task(number: int) -> torch.Tensor:
    return torch.full((4,), task(number))


if __name__ == "__main__":
    kind, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    if kind == "pool":
        with context.Pool(3, begin) as pool:
            print(pool.map(task, range(6), chunksize=2), pool.apply(task, (7,)))
            print(sorted(pool.imap_unordered(task, range(10, 14))))
    elif kind == "torch":
        with torch.multiprocessing.get_context(method).Pool(3, begin) as pool:
            print(sum(pool.map(tensor_task, range(6))))
    else:
        with ProcessPoolExecutor(3, context, begin) as pool:
            print(list(pool.map(task, range(6))), pool.submit(task, 7).result())
