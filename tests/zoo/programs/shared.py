"""A module that two parents hold and call, and a weight that two modules share."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fault(self.inner(x).tanh())


class Side(nn.Module):
    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.mixer(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        mixer = Mixer()
        self.left, self.right = Side(mixer), Side(mixer)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.right(self.left(self.table(ids))))


net = Net()
optimizer = torch.optim.Adam(net.parameters())
for _ in range(2):
    optimizer.zero_grad()
    ids = torch.randint(11, (2, 5))
    loss = nn.functional.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
