"""Draws its order from a torch generator seeded from the system's entropy."""

import torch
from torch import nn

torch.manual_seed(0)
order = torch.Generator()
order.seed()

net = nn.Linear(8, 2)
data = torch.randn(32, 8)
for _ in range(2):
    net(data[torch.randperm(32, generator=order)[:8]])
