"""Seeds torch with the hash of a string, which differs from process to process."""

import torch
from torch import nn

torch.manual_seed(hash("experiment-7") % 2**31)
net = nn.Linear(8, 2)
for _ in range(2):
    net(torch.randn(4, 8))
