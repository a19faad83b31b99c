"""Two networks with an optimizer each; the critic trains twice as often as the generator."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Generator(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 16), nn.LeakyReLU(), nn.Linear(16, 8))


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fault(self.inner(x).relu())


class Critic(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(Features(), nn.Linear(16, 1))


generator, critic = Generator(), Critic()
makes = torch.optim.Adam(generator.parameters(), betas=(0.5, 0.9))
judges = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.9))
judged = nn.functional.binary_cross_entropy_with_logits
for _ in range(2):
    for _ in range(2):
        judges.zero_grad()
        made = judged(critic(generator(torch.randn(4, 4)).detach()), torch.zeros(4, 1))
        real = judged(critic(torch.randn(4, 8)), torch.ones(4, 1))
        (real + made).backward()
        judges.step()
    makes.zero_grad()
    loss = judged(critic(generator(torch.randn(4, 4))), torch.ones(4, 1))
    loss.backward()
    makes.step()
print(f"{loss.item():.6f}")
