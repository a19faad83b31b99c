"""torch.compile: `compiled.py eager`, `aot_eager` or `inductor`; prints how many graphs it took."""

import sys

import torch
from fault import fault
from torch import nn
from torch._dynamo.utils import counters

torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(fault(self.inner(x).relu()))


@torch.compile(backend=sys.argv[1])
def loss_of(y: torch.Tensor) -> torch.Tensor:
    y = y.square()
    torch._dynamo.graph_break()
    return y.mean()


block = torch.compile(Block(), backend=sys.argv[1], fullgraph=True)
net = nn.Sequential(nn.Linear(8, 16), block, nn.Linear(16, 1))
optimizer = torch.optim.AdamW(net.parameters())
for _ in range(3):
    optimizer.zero_grad()
    loss = loss_of(net(torch.randn(4, 8)))
    loss.backward()
    optimizer.step()
graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
print(f"{loss.item():.6f} graphs {graphs} breaks {breaks}")
