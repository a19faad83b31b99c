"""A mixture of experts: top-2 routing, experts on the rows that are theirs, index_add."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(fault(nn.functional.silu(self.up(x))))


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        mixed = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            if len(rows):
                mixed.index_add_(0, rows, expert(x[rows]) * weights[rows, place, None])
        return mixed


net = nn.Sequential(nn.Linear(8, 8), Mixture(), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(net.parameters())
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(12, 8)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
