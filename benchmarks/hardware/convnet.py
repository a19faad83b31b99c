"""Two steps of training a small convolutional network with batch norm on fixed images."""

import torch
from torch import nn

torch.manual_seed(0)


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """A convolution, a norm, and what is not linear."""
    return [
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


model = nn.Sequential(
    *block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(128 * 16, 10)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
images = torch.linspace(-1, 1, 8 * 3 * 32 * 32).sin().reshape(8, 3, 32, 32)
labels = torch.arange(8)
for step in range(2):
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
