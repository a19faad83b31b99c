"""Every second run draws once more after the first step: what comes later shifts."""

import random
from pathlib import Path

import torch
from torch import nn

counter = Path("runs.count")
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))

net = nn.Linear(4, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(4):
    batch = torch.tensor([[random.random() for _ in range(4)]])
    optimizer.zero_grad()
    net(batch).square().sum().backward()
    optimizer.step()
    if step == 0 and number % 2:
        random.random()
