"""Small networks of the kinds that people train, each with its data, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import data
import torch
from torch import nn
from torch.nn import functional as F

WIDTH = 16


@dataclass(frozen=True)
class Architecture:
    """What a training program is made of; `loss` is given the model and a batch."""

    model: Callable[[], nn.Module]
    samples: Callable[[], data.Data]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    loader: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None
    reseeds: bool = False


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.around = nn.Conv2d(into, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.around(x))


class Recurrent(nn.Module):
    """An embedding, a recurrent network and a head over its last state."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.rnn = kind(WIDTH, WIDTH, batch_first=True, **options)
        self.head = nn.Linear(WIDTH, 20)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embedding(ids))
        return self.head(torch.tanh(states[:, -1]))


class Encoder(nn.Module):
    """A Transformer's encoder over tokens, with learnt places."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(6, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(ids) + self.places).mean(1))


class Attention(nn.Module):
    """Causal attention through the fused operator."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A layer of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = (
            nn.LayerNorm(WIDTH),
            Attention(),
            nn.LayerNorm(WIDTH),
        )
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH), nn.Dropout(0.1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """A GPT whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Patches(nn.Module):
    """A vision transformer: patches, a token of its own for the class, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(0.02 * torch.randn(1, 5, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
        y = self.norm(x)
        x = x + self.attention(y, y, y)[0]
        return self.head((x + self.mlp(x))[:, 0])


class Unet(nn.Module):
    """Down and up again, with a way across."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        across = self.down(x)
        return self.out(torch.cat([across, self.up(self.middle(self.pool(across)))], 1))


class Variational(nn.Module):
    """A variational autoencoder: it draws in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(24, WIDTH), nn.ReLU())
        self.mean, self.spread = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        self.decode = nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 24))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.encode(x)
        mean, spread = self.mean(hidden), self.spread(hidden)
        drawn = mean + torch.randn_like(spread) * torch.exp(0.5 * spread)
        return self.decode(drawn), mean, spread


class Experts(nn.Module):
    """Each token goes to two of four experts."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(12, WIDTH)
        self.router = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LeakyReLU()) for _ in range(4)
        )
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inward(x)
        share, chosen = torch.softmax(self.router(x), -1).topk(2, -1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            y = y.index_add(0, rows, expert(x[rows]) * share[rows, place, None])
        return self.head(y)


class Messages(nn.Module):
    """One round of messages along the edges of a graph."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.own, self.sent = nn.Linear(into, out), nn.Linear(into, out, bias=False)

    def forward(self, x: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sent = self.sent(x).index_select(0, source)
        heard = torch.zeros(len(x), sent.shape[1]).index_add_(0, target, sent)
        return F.elu(self.own(x) + heard)


class Graph(nn.Module):
    """A graph network; the graphs of a batch are one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Messages(6, WIDTH), Messages(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        count = nodes.shape[1]
        offset = (torch.arange(len(nodes)) * count)[:, None]
        source, target = ((edges[:, end] + offset).flatten() for end in (0, 1))
        x = self.second(self.first(nodes.flatten(0, 1), source, target), source, target)
        return self.head(x.unflatten(0, (-1, count)).amax(1))[:, 0]


def classify(model: nn.Module, batch: Any) -> torch.Tensor:
    """Cross entropy of a batch of inputs and classes."""
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    return F.cross_entropy(model(x), y)


def next_token(model: nn.Module, batch: Any) -> torch.Tensor:
    """Cross entropy of each token after the first."""
    (ids,) = batch
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def last_token(model: nn.Module, batch: Any) -> torch.Tensor:
    """Cross entropy of the last token; a loader makes a tensor of each place of a list."""
    ids = torch.stack(batch[0], 1) if isinstance(batch[0], list) else batch[0]
    return F.cross_entropy(model(ids[:, :-1]), ids[:, -1])


def evidence(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of a variational autoencoder."""
    made, mean, spread = model(batch[0])
    away = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(1).mean()
    return F.mse_loss(made, batch[0]) + 0.01 * away


def images(**options: Any) -> data.Data:
    """Images with one of four classes."""
    return data.Data(data.numbers(3, 8, 8), data.labels(4), **options)


ARCHITECTURES = {
    "mlp": Architecture(
        lambda: nn.Sequential(
            nn.Linear(12, WIDTH), nn.ReLU(), nn.Dropout(0.2), nn.Linear(WIDTH, 4)
        ),
        lambda: data.Tensors(data.numbers(12), data.labels(4)),
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, foreach=False),
        classify,
    ),
    "cnn": Architecture(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(72, 4),
        ),
        lambda: images(give=tuple),
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, foreach=True),
        classify,
    ),
    "resnet": Architecture(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), Residual(8, 8, 1), Residual(8, 16, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        ),
        lambda: images(give=data.named, augment=data.mirrored_by_numpy),
        lambda parameters: torch.optim.Adam(parameters, 0.01, foreach=True),
        classify,
    ),
    "lstm": Architecture(
        lambda: Recurrent(nn.LSTM),
        lambda: data.Data(data.labels(20, 6), give=data.lists),
        lambda parameters: torch.optim.Adam(parameters, 0.01, foreach=False),
        last_token,
        clip=1.0,
    ),
    "gru": Architecture(
        lambda: Recurrent(nn.GRU, num_layers=2, dropout=0.2),
        lambda: data.Tensors(data.labels(20, 6)),
        lambda parameters: torch.optim.RMSprop(parameters, 0.01, foreach=False),
        last_token,
    ),
    "encoder": Architecture(
        Encoder,
        lambda: data.Data(data.labels(20, 6), data.labels(4), give=tuple),
        lambda parameters: torch.optim.AdamW(parameters, 0.01, foreach=True),
        classify,
        loader={"collate_fn": data.stacked},
    ),
    "gpt": Architecture(
        Decoder,
        lambda: data.Tensors(data.labels(20, 7)),
        lambda parameters: torch.optim.AdamW(parameters, 0.01, fused=True),
        next_token,
        clip=1.0,
    ),
    "vit": Architecture(
        Patches,
        lambda: images(give=tuple, augment=data.mirrored_by_python),
        lambda parameters: torch.optim.AdamW(parameters, 0.01, foreach=False),
        classify,
    ),
    "unet": Architecture(
        Unet,
        lambda: data.Data(data.numbers(1, 8, 8), data.numbers(1, 8, 8, seed=2), give=tuple),
        lambda parameters: torch.optim.Adagrad(parameters, 0.01, foreach=False),
        lambda model, batch: F.smooth_l1_loss(model(batch[0]), batch[1]),
        loader={"collate_fn": data.stacked},
    ),
    "vae": Architecture(
        Variational,
        lambda: data.Tensors(data.numbers(24)),
        lambda parameters: torch.optim.Adam(parameters, 0.01, fused=True),
        evidence,
        reseeds=True,
    ),
    "experts": Architecture(
        Experts,
        lambda: data.Data(data.numbers(12), data.labels(4), give=data.named),
        lambda parameters: torch.optim.NAdam(parameters, 0.01, foreach=True),
        classify,
    ),
    "graph": Architecture(
        Graph,
        lambda: data.Data(
            data.numbers(6, 6), data.labels(6, 2, 8), data.numbers(1, seed=3), give=tuple
        ),
        lambda parameters: torch.optim.SGD(parameters, 0.05, foreach=False),
        lambda model, batch: (model(batch[0], batch[1]) - batch[2][:, 0]).square().mean(),
        loader={"collate_fn": data.stacked},
    ),
    "workers": Architecture(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Sigmoid()
        ),
        lambda: images(give=tuple),
        lambda parameters: torch.optim.Adamax(parameters, 0.01, foreach=False),
        lambda model, batch: F.binary_cross_entropy(model(batch[0]), torch.sigmoid(batch[0])),
        loader={"num_workers": 2},
    ),
}  # fmt: skip
