"""A gradient penalty: the backward of a backward."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.norm = nn.GroupNorm(2, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.norm(self.inner(x)).tanh()))


critic = Critic()
optimizer = torch.optim.Adam(critic.parameters())
for _ in range(2):
    optimizer.zero_grad()
    x = torch.randn(4, 8, requires_grad=True)
    score = critic(x)
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    loss = score.mean() + 10 * (slope.norm(dim=1) - 1).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
