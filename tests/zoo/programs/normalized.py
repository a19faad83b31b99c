"""Running statistics: batch norm in training and evaluation, without momentum, instance norm."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.cumulative = nn.BatchNorm2d(4, momentum=None, affine=False)
        self.instance = nn.InstanceNorm2d(4, track_running_stats=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = fault(self.norm(self.conv(x)).relu_())
        return self.head(self.instance(self.cumulative(x)).amax((2, 3)))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(2):
    net.train()
    optimizer.zero_grad()
    loss = net(torch.randn(2, 1, 6, 6)).square().mean()
    loss.backward()
    optimizer.step()
    net.eval()
    with torch.no_grad():
        held = net(torch.randn(2, 1, 6, 6)).mean()
print(f"{loss.item():.6f} {held.item():.6f} {net.norm.running_var.sum().item():.6f}")
