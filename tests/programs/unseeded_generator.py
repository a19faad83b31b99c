"""Adds noise from a NumPy generator that nobody seeded; everything else is seeded."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
noise = np.random.default_rng()

net = nn.Linear(8, 2)
for _ in range(2):
    x = torch.randn(4, 8) + torch.from_numpy(noise.standard_normal((4, 8), dtype=np.float32))
    net(x)
