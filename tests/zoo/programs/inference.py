"""Inference: inference_mode, no_grad, evaluation of dropout and batch norm, then training again."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.inner(x).relu()).mean((2, 3)))


@torch.inference_mode()
def evaluate(x: torch.Tensor) -> torch.Tensor:
    net.eval()
    y = net(x)
    y[0] = 0
    return y.softmax(1)


net = Net()
x = torch.randn(2, 1, 8, 8)
first = evaluate(x)
with torch.no_grad():
    second = net(x)
net.train()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
loss = net(x).square().mean()
loss.backward()
optimizer.step()
third = evaluate(x)
print(f"{first.sum().item():.6f} {second.sum().item():.6f} {third.sum().item():.6f}")
