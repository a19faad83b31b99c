"""Differentiates a model's function, whose tensors are wrapped, with noise of its own generator."""

import os

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)
own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
weights = {name: value.detach() for name, value in net.named_parameters()}


def loss(weights, x):
    return functional_call(net, weights, (x,)).pow(2).mean()


for _ in range(2):
    x = torch.empty(6, 4).normal_(generator=own)
    gradients = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    weights = {name: weights[name] - 0.1 * gradients[name].mean(0) for name in weights}
