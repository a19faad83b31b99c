"""Saves and loads in the middle: weights only, another format, a mapped file, a copied model."""

import copy
import io

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
        return self.head(fault(self.inner(x).relu()))


def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


net = Net()
optimizer = torch.optim.AdamW(net.parameters())
train(net, optimizer)
states = {
    "net": net.state_dict(),
    "optimizer": optimizer.state_dict(),
    "random": torch.get_rng_state(),
}
torch.save(states, "state.pt")
memory = io.BytesIO()
torch.save(states["net"], memory, _use_new_zipfile_serialization=False)
train(net, optimizer)

again = Net()
resumed = torch.optim.AdamW(again.parameters())
loaded = torch.load("state.pt", weights_only=True)
again.load_state_dict(loaded["net"])
resumed.load_state_dict(loaded["optimizer"])
torch.set_rng_state(loaded["random"])
first = train(again, resumed)
again.load_state_dict(torch.load("state.pt", weights_only=True, mmap=True)["net"], assign=True)
memory.seek(0)
copied = copy.deepcopy(again)
copied.load_state_dict(torch.load(memory, weights_only=True))
print(f"{first:.6f} {again(torch.ones(1, 8)).item():.6f} {copied(torch.ones(1, 8)).item():.6f}")
