"""Draws from torch's global generator, which it never seeds."""

import torch

print(torch.rand(3).sin().sum())
