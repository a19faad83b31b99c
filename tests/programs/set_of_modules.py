"""Draws the weights of a set of modules: which gets which depends on their addresses."""

import torch
from torch import nn

torch.manual_seed(0)

net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(120)))
with torch.no_grad():
    for module in set(net):
        module.weight.copy_(torch.randn(4, 4))
net(torch.ones(1, 4))
