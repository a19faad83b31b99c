"""A convolutional network with batch normalisation, in-place ReLU and dropout.

It learns to tell discs from squares in pictures it draws itself.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)


def pictures(count: int, size: int = 24) -> TensorDataset:
    """`count` pictures of shape (1, size, size), with 0 for a disc and 1 for a square."""
    grid = torch.arange(size, dtype=torch.float32)
    labels = torch.randint(0, 2, (count,))
    centres = torch.randint(6, size - 6, (count, 2)).float()
    radius = torch.randint(3, 6, (count, 1, 1)).float()
    dx = (grid[None, None, :] - centres[:, 0, None, None]).abs()
    dy = (grid[None, :, None] - centres[:, 1, None, None]).abs()
    disc = (dx.square() + dy.square()).sqrt() <= radius
    square = torch.maximum(dx, dy) <= radius
    images = torch.where(labels[:, None, None] == 0, disc, square).float()
    return TensorDataset(images[:, None] + 0.1 * torch.randn(count, 1, size, size), labels)


def build() -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, 2),
    )


def main() -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for images, labels in DataLoader(pictures(128), batch_size=32, shuffle=True):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
