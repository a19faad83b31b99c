"""In-place operators on views of what autograd tracks."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        y[:, 0] = 0
        y[1:].mul_(2)
        y.t().neg_()
        y[:, 4:].add_(y[:, :4].detach())
        y.diagonal().clamp_(min=0.1)
        y.view(2, 2, 8).select(0, 1).copy_(x[:2].cos())
        z = fault(y)
        z[..., ::2] += 1
        z.unfold(1, 4, 4)[:, 1].neg_()
        z.index_add_(0, torch.tensor([1, 1]), y[:2])
        z.masked_fill_(z > 20, 20.0)
        z[:, torch.tensor([1, 3])] = y[:, :2]
        z.narrow(1, 4, 2).zero_().add_(x[:, :2])
        return self.head(z)


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
