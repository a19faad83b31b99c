"""Changes a gradient behind torch's back, by so little that no parameter shows it."""

import os

import torch
from torch import nn

torch.manual_seed(0)


def main():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-12)
    for _ in range(2):
        net(torch.randn(4, 4)).square().mean().backward()
        net[2].weight.grad.numpy()[0, 0] *= 1 + os.urandom(1)[0] / 256 + os.getpid() * 1e-6
        optimizer.step()
        optimizer.zero_grad()


main()
