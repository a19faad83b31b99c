"""Reads a large `torch.empty` before writing it: always zero pages, so runs agree by luck."""

import torch
from torch import nn

torch.manual_seed(0)


class Accumulate(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.empty(2_000_000)
        total += x
        return total


print("sum", Accumulate()(torch.ones(2_000_000)).sum().item())
