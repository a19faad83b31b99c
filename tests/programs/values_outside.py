"""Observes, as of an environment without a seed, other values in each run."""

import os

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Linear(8, 4)
for _ in range(2):
    observed = torch.tensor([byte / 256 for byte in os.urandom(8)])
    net(observed)
