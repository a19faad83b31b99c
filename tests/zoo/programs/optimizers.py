"""One optimizer's for-loop, foreach or fused implementation: `optimizers.py AdamW fused`."""

import sys

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)
name, kind = sys.argv[1:]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.inner(x).relu()))


net = Net()
groups = [
    {"params": net.inner.parameters(), "weight_decay": 0.1},
    {"params": net.head.parameters(), "weight_decay": 0.0},
]
extra = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
kinds = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
optimizer = getattr(torch.optim, name)(groups, lr=0.01, **extra, **kinds[kind])
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
