"""Custom autograd Functions: in either style, in place, with a backward that uses autograd."""

import torch
from fault import fault
from torch import nn
from torch.autograd.function import once_differentiable

torch.manual_seed(0)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * x, x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Halve(torch.autograd.Function):
    """In place."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad * 0.5


class Again(torch.autograd.Function):
    """Runs a module without a graph, and again with one in the backward: a checkpoint by hand."""

    @staticmethod
    def forward(ctx, x, module, *parameters):
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, grad):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.module(x)
        first, *others = torch.autograd.grad(y, (x, *ctx.module.parameters()), grad)
        return first, None, *others


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fault(self.inner(x).tanh())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = Again.apply(x, self.block, *self.block.parameters())
        x, sign = Square.apply(x)
        return self.head(Halve.apply(x + sign))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f}")
