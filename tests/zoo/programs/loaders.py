"""DataLoaders with workers: `loaders.py fork`, `spawn` or `forkserver`; shuffled, twice over."""

import random
import sys

import numpy as np
import torch
from fault import fault
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


class Noisy(Dataset):
    """Items whose noise the worker draws."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, at: int) -> tuple[torch.Tensor, float]:
        noise = torch.randn(8) + random.random() + np.random.random()
        return noise.float() + at, float(at)


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        for at in range(worker.id, 6, worker.num_workers):
            yield {"x": torch.full((2,), float(at)), "name": f"item {at}"}


def seed(worker: int) -> None:
    random.seed(torch.initial_seed() % 2**32)
    np.random.seed(torch.initial_seed() % 2**32)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.inner(x).relu()))


def main() -> None:
    torch.manual_seed(0)
    options = {"num_workers": 2, "multiprocessing_context": sys.argv[1], "worker_init_fn": seed}
    loader = DataLoader(Noisy(), 4, shuffle=True, persistent_workers=True, **options)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x)[:, 0], y.float())
            loss.backward()
            optimizer.step()
    total = sum(batch["x"].sum() for batch in DataLoader(Stream(), 3, **options))
    print(f"{loss.item():.6f} {total.item()}")


if __name__ == "__main__":
    main()
