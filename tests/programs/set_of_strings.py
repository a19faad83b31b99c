"""The order of a set of words, and so the batch, depends on the hash seed."""

import torch
from torch import nn

torch.manual_seed(0)

words = {f"word-{n}" for n in range(40)}
batch = torch.tensor([[float(ord(c)) for c in w.ljust(8)] for w in words])
net = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for start in range(0, 40, 20):
    loss = net(batch[start : start + 20] / 128).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
