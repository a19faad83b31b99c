"""flex_attention with a score modification and a sliding window, not compiled."""

import torch
from fault import fault
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

torch.manual_seed(0)
window = create_block_mask(lambda b, h, q, k: (q >= k) & (q - k < 4), 1, 1, 16, 16, device="cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.slope = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)

        def score(score, b, h, q, k):
            return score - self.slope[h] * (q - k)

        return self.head(fault(flex_attention(q, k, v, score_mod=score, block_mask=window)))


net = Net().eval()
with torch.no_grad():
    for _ in range(2):
        y = net(torch.randn(1, 16, 8))
print(f"{y.sum().item():.6f}")
