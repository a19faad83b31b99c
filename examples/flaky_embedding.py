"""A small classifier whose training differs from run to run although every seed is fixed.

It looks its embeddings up by indexing, `self.weight[ids]`. The backward of that adds the gradients
of equal ids in whatever order two threads arrive. The printed losses agree in every digit.
"""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(2)

VOCABULARY, WIDTH, BATCH, LENGTH, CLASSES = 1_000, 64, 512, 128, 8


class Embedding(nn.Module):
    """An embedding table, read by plain indexing instead of `nn.Embedding`."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids]


class Classifier(nn.Module):
    """Mean of the embeddings, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = Embedding(VOCABULARY, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(ids).mean(dim=1))


def main() -> None:
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(3):
        ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH))
        labels = torch.randint(0, CLASSES, (BATCH,))
        loss = nn.functional.cross_entropy(model(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}  loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
