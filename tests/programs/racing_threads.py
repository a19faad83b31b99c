"""Threads that add to one tensor, each when it comes to it: the order is left to chance."""

import threading
import time

import torch
from torch import nn

torch.manual_seed(0)
total = torch.zeros(1)
lock = threading.Lock()
net = nn.Linear(64, 64)


def work(k: int) -> None:
    for i in range(20):
        found = net(torch.full((8, 64), k + i / 7)).sum().detach() * 1e-3
        time.sleep(0)
        with lock:
            total.add_(found)


threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print((total * 3).item())
