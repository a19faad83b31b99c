"""Mixed precision: autocast to bfloat16 and a gradient scaler, whose first scale is too large."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fault(self.inner(x).relu())


net = nn.Sequential(nn.Linear(8, 16), Block(), nn.LayerNorm(16), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(net.parameters())
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
for _ in range(3):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(torch.randn(4, 8)).square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
print(f"{loss.item():.6f} {scaler.get_scale()}")
