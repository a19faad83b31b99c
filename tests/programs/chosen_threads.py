"""A number of threads that is left to chance, or to THREADS: a dot product rounds by it."""

import os
import time

import torch

torch.manual_seed(0)
torch.set_num_threads(int(os.environ.get("THREADS") or 1 + time.time_ns() // 100 % 2))
x = torch.randn(300_000)
print(torch.dot(x, x).item())
