"""Multiplies by a number that is another one in each run."""

import os

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(4, 4)
for _ in range(2):
    net(torch.ones(2, 4)) * float(os.getpid())
