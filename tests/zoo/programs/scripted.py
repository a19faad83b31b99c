"""TorchScript: a scripted module with control flow, a traced one, a frozen one."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            x = self.inner(x).tanh()
            if bool(x.sum() > 0):
                x = x - 0.1
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.looping = torch.jit.script(Looping())
        self.traced = torch.jit.trace(nn.Sequential(nn.Linear(8, 8), nn.GELU()), torch.ones(2, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.traced(fault(self.looping(x, 2))))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()))
print(f"{loss.item():.6f} {frozen(torch.ones(1, 8)).sum().item():.6f}")
