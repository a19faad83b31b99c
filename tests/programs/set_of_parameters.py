"""Sums gradient norms over a set of parameters: an order that depends on their addresses."""

import torch
from torch import nn

torch.manual_seed(0)

net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(120)))
trained = {p for p in net.parameters() if p.requires_grad}
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for _ in range(2):
    loss = net(torch.randn(4, 8)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    total = torch.zeros(())
    for parameter in trained:
        total = total + parameter.grad.square().sum()
    for parameter in net.parameters():
        parameter.grad /= total.sqrt() + 1e-6
    optimizer.step()
