"""An LSTM that learns to continue a sum of sines."""

import torch
from torch import nn

torch.manual_seed(0)


class Forecaster(nn.Module):
    """Two LSTM layers and a linear read-out of every step."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, width, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(width, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(series)
        return self.head(states)


def batch(size: int = 16, length: int = 48) -> torch.Tensor:
    """`size` series of `length` + 1 values, each with phases of its own."""
    time = torch.linspace(0, 6, length + 1)
    phase = 6.28 * torch.rand(size, 2, 1)
    return (torch.sin(3 * time + phase[:, 0]) + 0.5 * torch.sin(7 * time + phase[:, 1]))[..., None]


def main() -> None:
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(3):
        series = batch()
        loss = nn.functional.mse_loss(model(series[:, :-1]), series[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}  loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
