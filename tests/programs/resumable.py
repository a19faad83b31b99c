"""Training that goes on from its checkpoint, but for what `--forget` names."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--forget", default="")
parser.add_argument("--every", type=int, default=1)
parser.add_argument("--steps", type=int, default=9)
parser.add_argument("--resume")
parser.add_argument("--lazy", action="store_true")
parser.add_argument("--evaluate", action="store_true")
parser.add_argument("--accumulate", type=int, default=1)
arguments = parser.parse_args()
PER_EPOCH = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(16, 1)
        self.mask = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(x)).relu()
        if arguments.lazy:
            # As causal masks and rotary tables are made: when they are first used.
            if self.mask is None:
                self.mask = torch.ones(16) * 2
            hidden = hidden * self.mask
        return self.last(self.drop(hidden))


torch.manual_seed(1)
random.seed(1)
np.random.seed(1)
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
averages = {name: value.detach().clone() for name, value in model.named_parameters()}
data = TensorDataset(torch.linspace(-1, 1, 256).view(32, 8), torch.linspace(0, 1, 32).view(32, 1))
start = 0

if arguments.resume or Path("auto.pt").exists():
    saved = torch.load(arguments.resume or "auto.pt", weights_only=False)
    weights = saved["model"]
    if arguments.forget == "weights":
        del weights["last.bias"]
    if arguments.forget == "buffers":
        weights = {k: v for k, v in weights.items() if "running" not in k}
    if arguments.forget != "model":
        model.load_state_dict(weights, strict=False)
    if arguments.forget != "optimizer":
        optimizer.load_state_dict(saved["optimizer"])
    if arguments.forget == "moments":
        for state in optimizer.state.values():
            state["exp_avg"].zero_()
    if arguments.forget != "schedule":
        scheduler.load_state_dict(saved["scheduler"])
    if arguments.forget == "lr":
        optimizer.param_groups[0]["lr"] = 1e-2
    if arguments.forget != "torch":
        torch.set_rng_state(saved["torch"])
    if arguments.forget != "numpy":
        np.random.set_state(saved["numpy"])
    if arguments.forget != "python":
        random.setstate(saved["python"])
    if arguments.forget != "averages":
        averages = saved["averages"]
    if arguments.forget != "count":
        start = saved["step"]


def evaluate() -> None:
    model.eval()
    with torch.no_grad():
        print(f"evaluated {model(data.tensors[0]).sum().item():.4f}")
    model.train()


def batches(first: int):
    for epoch in range(first // PER_EPOCH, 100):
        order = torch.Generator().manual_seed(epoch)
        loader = DataLoader(data, batch_size=8, shuffle=True, generator=order)
        for at, batch in enumerate(loader):
            if epoch * PER_EPOCH + at >= first or arguments.forget == "data":
                yield batch


loop = batches(start)
for step in range(start, arguments.steps):
    optimizer.zero_grad()
    x, y = next(loop)
    x = x * (1 + 0.1 * random.random()) + torch.from_numpy(np.random.rand(8)).float()
    for part, goal in zip(
        x.chunk(arguments.accumulate), y.chunk(arguments.accumulate), strict=True
    ):
        loss = nn.functional.mse_loss(model(part), goal)
        loss = loss + 0.01 * sum(
            (model.get_parameter(n) - a).square().sum() for n, a in averages.items()
        )
        loss.backward()
    optimizer.step()
    scheduler.step()
    with torch.no_grad():
        for name, value in model.named_parameters():
            averages[name].lerp_(value, 0.1)
    if arguments.evaluate:
        evaluate()
    if (step + 1) % arguments.every == 0:
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "torch": torch.get_rng_state(),
                "numpy": np.random.get_state(),
                "python": random.getstate(),
                "averages": averages,
                "step": step + 1,
            },
            "last.pt",
        )
