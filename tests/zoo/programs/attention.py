"""Scaled dot product attention in its variants, and MultiheadAttention, trained."""

import torch
from fault import fault
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.heads = nn.MultiheadAttention(16, 2, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
        causal = scaled_dot_product_attention(q, k, v, is_causal=True)
        mask = torch.ones(length, length, dtype=torch.bool).tril(1)
        masked = scaled_dot_product_attention(fault(causal), k, v, attn_mask=mask)
        grouped = scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)
        with sdpa_kernel(SDPBackend.MATH):
            plain = scaled_dot_product_attention(q, k, v, dropout_p=0.1)
        y = (causal + masked + grouped + plain).transpose(1, 2).flatten(2)
        return self.out(self.heads(y, y, y, need_weights=False)[0])


net = Net()
optimizer = torch.optim.AdamW(net.parameters())
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(2, 6, 16)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
