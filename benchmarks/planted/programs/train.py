"""Trains one of the architectures for two epochs of two steps: `train.py ARCHITECTURE`."""

from __future__ import annotations

import random
import sys

import numpy as np
import planting
import torch
from architectures import ARCHITECTURES
from torch import nn
from torch.utils.data import DataLoader

chosen = ARCHITECTURES[sys.argv[1]]
random.seed(planting.seed("python"))
np.random.seed(planting.seed("numpy"))
torch.manual_seed(planting.seed("torch"))

model = chosen.model()
optimizer = chosen.optimizer(model.parameters())
samples = planting.samples(chosen.samples())
loader = DataLoader(samples, batch_size=8, shuffle=True, **chosen.loader)
planting.built(model, optimizer)

step = 0
for epoch in range(2):
    if chosen.reseeds:
        torch.manual_seed(planting.seed("epoch", 7 + epoch))
    for batch in loader:
        planting.draw(step)
        loss = chosen.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        if chosen.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), chosen.clip)
        optimizer.step()
        step += 1
        planting.stepped()
print(f"loss {loss.item():.6f}")
planting.ended()
