"""Draws once more after some steps: what comes later shifts."""

import os
import random

import torch
from torch import nn

net = nn.Linear(4, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(4):
    batch = torch.tensor([[random.random() for _ in range(4)]])
    optimizer.zero_grad()
    net(batch).square().sum().backward()
    optimizer.step()
    if os.urandom(1)[0] < 128:
        random.random()
