"""Writes into a parameter behind torch's back, through NumPy, after the last op."""

import os

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
with torch.no_grad():
    net(torch.ones(2, 4))
net[1].bias.detach().numpy()[0] = os.urandom(1)[0] + 256 * os.getpid()
