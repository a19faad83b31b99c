"""An optimizer whose state another library than torch writes, and whose parameters are the same."""

import os

import torch
from torch import nn

torch.manual_seed(0)


class Counting(torch.optim.Optimizer):
    """Descends, and keeps in its state what no parameter depends on."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter].setdefault("count", torch.zeros_like(parameter))
                parameter.add_(parameter.grad, alpha=-0.01)
                if parameter.dim() == 2:
                    kept.numpy()[0, 0] += os.urandom(1)[0] + 256 * os.getpid()


def main():
    net = nn.Linear(4, 1)
    optimizer = Counting(net.parameters())
    for _ in range(2):
        net(torch.randn(4, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


main()
