"""Weights that are computed: weight norm, spectral norm, parametrizations, pruning."""

import warnings

import torch
from fault import fault
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

torch.manual_seed(0)
warnings.filterwarnings("ignore", category=FutureWarning)


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fault(x.triu() + x.triu(1).transpose(-1, -2))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.old = nn.utils.weight_norm(nn.Linear(8, 8))
        self.new = parametrizations.weight_norm(nn.Linear(8, 8))
        self.spectral = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.hooked = nn.utils.spectral_norm(nn.Linear(8, 8))
        self.orthogonal = parametrizations.orthogonal(nn.Linear(8, 8))
        self.symmetric = nn.Linear(8, 8)
        parametrize.register_parametrization(self.symmetric, "weight", Symmetric())
        self.pruned = prune.l1_unstructured(nn.Linear(8, 1), "weight", amount=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.old, self.new, self.spectral, self.hooked):
            x = layer(x).tanh()
        with parametrize.cached():
            x = self.symmetric(self.symmetric(self.orthogonal(x)))
        return self.pruned(x)


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
