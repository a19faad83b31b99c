"""A program that gives the same bits on every device of a kind that works: what `screen` runs.

`python -m repro_audit.workload [--size N] [--steps N]` trains a model whose parts keep the units of
a device busy: products in several formats, convolutions, attention, special functions, reductions,
integers, and memory. It uses no operator whose result depends on the order in which threads arrive,
and makes its data of integers, on the host: they are the same on every machine. It runs on the
device that REPRO_AUDIT_DEVICE names, else on an accelerator, else on the CPU.
"""

from __future__ import annotations

import argparse
import os

# Read when CUDA's library of products begins: without it two streams may share its memory.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import torch
from torch import Tensor, nn

_SIZES = {"cpu": 192}
_SIZE = 2048
_UNIT = 2.0**-20
_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407


def drawn(*shape: int, seed: int) -> Tensor:
    """Numbers from -1 to 1 that float32 holds exactly, made of integers on the host."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**20), 2**20 + 1, shape, generator=generator).float() * _UNIT


class Product(nn.Module):
    """A product of matrices of one dtype, as matrix units make it."""

    def __init__(self, size: int, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(size, size, seed=seed).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Of [n, size] in float32, [n, size] in float32."""
        made: Tensor = (x.to(self.weight.dtype) @ self.weight).float() / x.shape[-1] ** 0.5
        return made


class Convolution(nn.Module):
    """Two convolutions, and a normalisation of channels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = nn.Parameter(drawn(32, 3, 3, 3, seed=seed))
        self.second = nn.Parameter(drawn(32, 32, 3, 3, seed=seed + 1))
        self.scale = nn.Parameter(torch.ones(32))
        self.shift = nn.Parameter(torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        """Of images [n, 3, h, w], [n, 32, h, w]."""
        y = nn.functional.relu(nn.functional.conv2d(x, self.first, padding=1))
        y = nn.functional.conv2d(y, self.second, padding=1)
        return nn.functional.group_norm(y, 4, self.scale, self.shift)


class Attention(nn.Module):
    """Attention written out: fused ones add up gradients in any order."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Parameter(drawn(size, size, seed=seed + i)) for i in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of [n, size], [n, size]."""
        root: float = x.shape[-1] ** 0.5
        q, k, v = (x @ weight / root for weight in (self.query, self.key, self.value))
        found: Tensor = torch.softmax(q @ k.T, dim=-1) @ v
        return found


class Functions(nn.Module):
    """Special functions, and divisions, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape, the same shape."""
        y = torch.exp(x) + torch.log1p(x.abs()) + torch.sin(3 * x) + torch.tanh(x)
        return y + torch.erf(x) + torch.sqrt(x.square() + 1) + x / (x.square() + 0.5)


class Reductions(nn.Module):
    """Sums and orders of rows, and of everything."""

    def forward(self, x: Tensor) -> Tensor:
        """Of [n, m], [n]."""
        ordered, _ = torch.sort(x, dim=-1, stable=True)
        rows = x.var(dim=-1) + torch.logsumexp(x, dim=-1) + ordered[:, x.shape[-1] // 2]
        found: Tensor = rows + x.mean() + torch.linalg.vector_norm(x)
        return found


class Integers(nn.Module):
    """A generator of integers, step by step: one wrong bit changes all that follow."""

    def forward(self, x: Tensor) -> Tensor:
        """Of int64 of any shape, the same shape."""
        for _ in range(8):
            x = x * _MULTIPLIER + _INCREMENT
            x = x ^ (x >> 29)
        return x


class Memory(nn.Module):
    """Patterns that are moved through memory and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Of int32 [n, n], the same."""
        for pattern in (0x55555555, -1, 0x0F0F0F0F):
            x = (x ^ pattern).t().contiguous().flip(0).roll(1, 1)
        return x


class Workload(nn.Module):
    """All the parts on the same numbers."""

    def __init__(self, size: int, dtypes: tuple[torch.dtype, ...]) -> None:
        super().__init__()
        self.products = nn.ModuleDict(
            {f"in_{str(d)[6:]}": Product(size, d, 10 + i) for i, d in enumerate(dtypes)}
        )
        self.convolution = Convolution(20)
        self.attention = Attention(size, 30)
        self.functions = Functions()
        self.reductions = Reductions()
        self.integers = Integers()
        self.memory = Memory()

    def forward(self, x: Tensor, images: Tensor, integers: Tensor) -> Tensor:
        """The loss of [n, size], images [n, 3, h, w] and int64 [n, n].

        Sums, not means: of a mean over n * n elements float16's gradients would be zero.
        """
        made = [product(x) for product in self.products.values()]
        losses = [y.square().sum() for y in made]
        losses.append(self.convolution(images).square().mean(dim=(0, 2, 3)).sum())
        losses.append(self.attention(x).square().sum())
        losses.append(self.reductions(self.functions(made[0])).sum())
        # Nothing is learnt of integers: their digests are what tells.
        self.memory(self.integers(integers).to(torch.int32))
        return torch.stack(losses).sum()


def main() -> None:
    """Train for some steps on the device of this run."""
    options = argparse.ArgumentParser(prog="repro_audit.workload")
    options.add_argument("--size", type=int, help="of matrices; by default as the device is large")
    options.add_argument("--steps", type=int, default=4)
    asked = options.parse_args()
    if asked.steps < 1 or (asked.size is not None and asked.size < 8):
        options.error("at least one step, and a size of 8")
    device = torch.device(os.environ.get("REPRO_AUDIT_DEVICE") or _accelerator())
    size = asked.size or _SIZES.get(device.type, _SIZE)
    torch.use_deterministic_algorithms(True)
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)
    if device.type != "mps":
        dtypes = (*dtypes, torch.float64)
    model = Workload(size, dtypes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    edge = max(8, size // 8)
    for step in range(asked.steps):
        x = drawn(size, size, seed=100 + step).to(device)
        images = drawn(8, 3, edge, edge, seed=200 + step).to(device)
        generator = torch.Generator().manual_seed(300 + step)
        integers = torch.randint(-(2**31), 2**31, (size, size), generator=generator).to(device)
        optimizer.zero_grad()
        model(x, images, integers).backward()
        optimizer.step()


def _accelerator() -> str:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


if __name__ == "__main__":
    main()
