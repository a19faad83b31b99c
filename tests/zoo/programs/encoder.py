"""A TransformerEncoder in evaluation on its fused fast path: dense, and nested by a padding."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 16)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, ids: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        return self.encoder(fault(self.table(ids)), src_key_padding_mask=padding)


net = Net().eval()
padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
with torch.no_grad():
    net(torch.randint(11, (2, 5)))
    y = net(torch.randint(11, (2, 5)), padding)
print(f"{y.sum().item():.6f}")
