"""Complex, bfloat16, float16, float8, boolean and integer tensors."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(x) * self.weight
        spectrum = fault(spectrum) + spectrum.conj()
        return torch.fft.irfft(spectrum, n=16) + spectrum.abs().sum() + spectrum.imag.mean()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectral = Spectral()
        self.inner = nn.Linear(16, 16, dtype=torch.bfloat16)
        self.scale = nn.Parameter(torch.ones(16, dtype=torch.float16))
        self.head = nn.Linear(16, 1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(self.spectral(x).bfloat16())
        low = x.detach().to(torch.float8_e4m3fn).float() - x.detach().to(torch.float8_e5m2).float()
        x = x.half() * self.scale + low.half()
        keep = (x > 0).logical_or(x.isfinite())
        return self.head(torch.where(keep, x, 0).double())


net = Net()
optimizer = torch.optim.Adam(net.parameters())
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 16)).square().mean()
    loss.backward()
    optimizer.step()
counts = torch.bincount(torch.randint(5, (20,)), minlength=5).to(torch.uint8) << 1
print(f"{loss.item():.6f} {counts.tolist()}")
