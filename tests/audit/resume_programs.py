"""Programs that resume in their own way, each behind `HEAD`; told so, they forget something."""

from __future__ import annotations

HEAD = """
import os
import sys
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
start = 0
saved = torch.load("c.pt", weights_only=False) if os.path.exists("c.pt") else None


def inputs(step, rows=8):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(step))


def save(step, **state):
    torch.save({**state, "step": step + 1}, "c.pt")
"""

CLOSURE = """
model = nn.Linear(4, 1)
optimizer = torch.optim.{optimizer}(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
for step in range(start, 7):
    def closure():
        optimizer.zero_grad()
        loss = model(inputs(step)).square().mean()
        loss.backward()
        return loss
    optimizer.step(closure)
    save(step, model=model.state_dict(), optimizer=optimizer.state_dict())
"""
CACHE = """
model = nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
data, known = [inputs(n, 2) for n in range(3)], {}


def item(n):
    if n not in known:
        known[n] = data[n] * 2
    return known[n]


if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
for step in range(start, 9):
    optimizer.zero_grad()
    model(item(step % 3)).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
LAZY = """
model = nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
criterion = nn.MSELoss()
criterion.register_buffer("weight", torch.ones(4))
scale = None
if saved:
    state = saved["model"]
    if "forget" in sys.argv:
        del state["bias"]
    model.load_state_dict(state, strict=False)
    start = saved["step"]
for step in range(start, 7):
    x = inputs(step)
    if scale is None:
        scale = torch.ones(4) * 0.5
    optimizer.zero_grad()
    criterion(model(x * scale), x).backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
GAN = """
generator, critic = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
both = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (critic, generator)]
if saved:
    generator.load_state_dict(saved["generator"])
    if "forget" not in sys.argv:
        critic.load_state_dict(saved["critic"])
    for optimizer, state in zip(both, saved["both"]):
        optimizer.load_state_dict(state)
    start = saved["step"]
for step in range(start, 10):
    x = inputs(step)
    both[0].zero_grad()
    (critic(generator(x).detach()).mean() - critic(x).mean()).backward()
    both[0].step()
    if step % CRITIC == CRITIC - 1:
        both[1].zero_grad()
        (-critic(generator(x)).mean()).backward()
        both[1].step()
    if step % 2 == 1:
        states = [optimizer.state_dict() for optimizer in both]
        save(step, generator=generator.state_dict(), critic=critic.state_dict(), both=states)
"""
ACCUMULATION = """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    for parameter, grad in zip(model.parameters(), saved["grads"]):
        parameter.grad = grad
    start = saved["step"]
for step in range(start, 16):
    model(inputs(step)).square().mean().backward()
    if step % 2 == 1:
        optimizer.step()
        optimizer.zero_grad()
    if step % 3 == 2:
        save(step, model=model.state_dict(), grads=[p.grad for p in model.parameters()])
"""
FUNCTIONAL = """
weight = torch.randn(4, 1, requires_grad=True)
optimizer = torch.optim.Adam([weight], lr=0.01)
if saved:
    with torch.no_grad():
        weight.copy_(saved["weight"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
for step in range(start, 9):
    optimizer.zero_grad()
    (inputs(step) @ weight).square().mean().backward()
    optimizer.step()
    if step % 2 == 1:
        save(step, weight=weight.detach(), optimizer=optimizer.state_dict())
"""
IDLE = """
model, other = nn.Linear(4, 1), nn.Linear(4, 1)
idle = torch.optim.SGD(other.parameters(), lr=0.1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
for step in range(start, 16):
    optimizer.zero_grad()
    model(inputs(step)).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
ROOTS = """
def net():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


encoder, decoder = net(), nn.Sequential(nn.Linear(4, 1), nn.Identity())
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.01)
if saved:
    encoder.load_state_dict(saved["encoder"])
    decoder.load_state_dict(saved["decoder"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
else:
    decoder(torch.zeros(1, 4))
for step in range(start, 7):
    optimizer.zero_grad()
    decoder(encoder(inputs(step))).square().mean().backward()
    optimizer.step()
    states = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}
    save(step, **states, optimizer=optimizer.state_dict())
"""
SEED = """
from torch.utils.data import DataLoader

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
average = model.weight.detach().clone()
if saved:
    model.load_state_dict(saved["model"])
    if "forget" not in sys.argv:
        average = saved["average"]
    start = saved["step"]
for epoch in range(start, 4):
    for x in DataLoader(inputs(1, 16), batch_size=8):
        optimizer.zero_grad()
        (model(x).square().mean() + (model.weight - average).square().sum()).backward()
        optimizer.step()
        with torch.no_grad():
            average.lerp_(model.weight, 0.1)
    save(epoch, model=model.state_dict(), average=average)
"""
HIDDEN = """
model = nn.LSTM(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hidden = (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
if saved:
    model.load_state_dict(saved["model"])
    if "forget" not in sys.argv:
        hidden = saved["hidden"]
    start = saved["step"]
for step in range(start, 7):
    optimizer.zero_grad()
    out, hidden = model(inputs(step)[:, None], tuple(h.detach() for h in hidden))
    out.square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict(), hidden=tuple(h.detach() for h in hidden))
"""
EARLY = """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
total = 9
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
    total = start + 1
for step in range(start, total):
    optimizer.zero_grad()
    model(inputs(step)).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
SKIPS = """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
average = model.weight.detach().clone()
if saved:
    model.load_state_dict(saved["model"])
    average, start = saved["average"], saved["step"]
for step in range(start, 5):
    optimizer.zero_grad()
    model(inputs(step)).square().mean().backward()
    optimizer.step()
    if step > start or step == 0:
        with torch.no_grad():
            average.lerp_(model.weight, 0.1)
    save(step, model=model.state_dict(), average=average)
"""
RANDOM_NAMES = """
import random

random.seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
average = model.weight.detach().clone()
if saved:
    model.load_state_dict(saved["model"])
    if "forget" not in sys.argv:
        average = saved["average"]
    start = saved["step"]
for step in range(start, 8):
    optimizer.zero_grad()
    (model(inputs(step)).square().mean() + (model.weight - average).square().sum()).backward()
    optimizer.step()
    name = f"picture-{random.randrange(1000)}"
    with torch.no_grad():
        average.lerp_(model.weight, 0.1)
    save(step, model=model.state_dict(), average=average)
"""
OPTIONS = """
import numpy as np

model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=np.float64(0.01))
if saved:
    model.load_state_dict(saved["model"])
    states = {n: dict(reversed(state.items())) for n, state in saved["state"].items()}
    groups = [{**group, "betas": list(group["betas"]), "lr": 0.01} for group in saved["groups"]]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    start = saved["step"]
for step in range(start, 7):
    optimizer.zero_grad()
    model(inputs(step)).square().mean().backward()
    optimizer.step()
    kept = optimizer.state_dict()
    save(step, model=model.state_dict(), state=kept["state"], groups=kept["param_groups"])
"""
AHEAD = """
from torch.utils.data import DataLoader

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]


def batches():
    loader = iter(DataLoader(inputs(1, 64), batch_size=8))
    ahead = next(loader)
    for number in range(8):
        batch, ahead = ahead, next(loader, None)
        if number >= start:
            yield number, batch


for step, x in batches():
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
TABLE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 1)
        self.table = None

    def forward(self, x):
        rows = len(x)
        if self.table is None or len(self.table) < rows:
            self.table = torch.arange(float(rows)).div(10)
        return self.last(x + self.table[:rows, None])


model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
for step in range(start, 8):
    optimizer.zero_grad()
    model(inputs(step, [5, 9, 6, 7, 5, 6, 7, 8][step])).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
TURNS = """
models = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
both = torch.optim.Adam(models[0].parameters()), torch.optim.SGD(models[1].parameters(), 0.1, 0.9)
if saved:
    for one, state in zip((*models, *both), saved["states"]):
        one.load_state_dict(state)
    start = saved["step"]
for step in range(start, 10):
    optimizer = both[(step + 1) % 2]
    optimizer.zero_grad()
    models[(step + 1) % 2](inputs(step)).square().mean().backward()
    optimizer.step()
    save(step, states=[one.state_dict() for one in (*models, *both)])
"""
WARM = """
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step < 5 else 1.0)
if saved:
    for one, state in zip((model, optimizer, warmup), saved["states"]):
        one.load_state_dict(state)
    torch.set_rng_state(saved["generator"])
    start = saved["step"]
for step in range(start, 9):
    optimizer.zero_grad()
    model(inputs(0)).square().mean().backward()
    optimizer.step()
    warmup.step()
    if step % 2 == 1:
        states = [one.state_dict() for one in (model, optimizer, warmup)]
        save(step, states=states, generator=torch.get_rng_state())
"""
OWN = """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
noise = torch.Generator().manual_seed(3)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
for step in range(start, 7):
    optimizer.zero_grad()
    x = inputs(step)
    model(x + torch.randn(8, 4, generator=noise)).square().mean().backward()
    optimizer.step()
    save(step, model=model.state_dict())
"""
SOCKET = """
import socket

socket.socket(socket.AF_UNIX).bind(f"s{os.getpid()}")
""" + EARLY.replace("total = start + 1", "pass")
