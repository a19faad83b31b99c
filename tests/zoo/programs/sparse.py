"""Sparse gradients of embeddings, a bag of them, SparseAdam beside SGD, a sparse product."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8, sparse=True)
        self.bag = nn.EmbeddingBag(50, 8, mode="sum", sparse=True)
        self.head = nn.Linear(8, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.table(ids).mean(1)) + self.bag(ids))


net = Net()
tables = torch.optim.SparseAdam([net.table.weight])
others = torch.optim.SGD([net.bag.weight, *net.head.parameters()], lr=0.1)
graph = torch.eye(4).roll(1, 0).to_sparse()
for _ in range(2):
    tables.zero_grad()
    others.zero_grad()
    loss = torch.sparse.mm(graph, net(torch.randint(50, (4, 5)))).square().mean()
    loss.backward()
    tables.step()
    others.step()
print(f"{loss.item():.6f}")
