"""LBFGS: a closure that the optimizer calls as often as its line search needs."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.inner(x).tanh()))


net = Net()
x, y = torch.randn(16, 4), torch.randn(16, 1)
optimizer = torch.optim.LBFGS(net.parameters(), max_iter=4, line_search_fn="strong_wolfe")


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(net(x), y)
    loss.backward()
    return loss


for _ in range(2):
    loss = optimizer.step(closure)
print(f"{loss.item():.6f}")
