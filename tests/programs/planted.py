"""A network with a planted fault: one op that changes single elements by one ULP.

The fault acts in every second process (counted in the file PLANT_COUNTER), in block 2, in the phase
PLANT_PHASE (forward, backward, optimizer), at step PLANT_STEP, and changes PLANT_ELEMENTS elements:
one, or two whose changes an XOR of the bits would cancel. From process PLANT_ENDS_AT on the program
fails.
"""

import os
from pathlib import Path

import torch
from torch import nn

counter = Path(os.environ["PLANT_COUNTER"])
process = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(process + 1))
if process >= int(os.environ.get("PLANT_ENDS_AT", "1000")):
    raise SystemExit(7)
PHASE = os.environ["PLANT_PHASE"]
STEP = int(os.environ["PLANT_STEP"])
ELEMENTS = int(os.environ["PLANT_ELEMENTS"])
state = {"step": 0}

torch.manual_seed(0)


def nudged(x: torch.Tensor, phase: str, block: int) -> torch.Tensor:
    """A copy of `x`, one ULP off in its first elements whose lowest bit is 0, if the fault acts."""
    y = x.detach().clone(memory_format=torch.contiguous_format)
    if process % 2 == 1 and (phase, state["step"], block) == (PHASE, STEP, 2):
        bits = y.view(-1).view(torch.int32)
        even = torch.nonzero(bits % 2 == 0)[7 : 7 + ELEMENTS, 0]
        bits[even] += 1
    return y


@torch.library.custom_op("planted::pass_through", mutates_args=())
def pass_through(x: torch.Tensor, block: int) -> torch.Tensor:
    return nudged(x, "forward", block)


@torch.library.custom_op("planted::pass_back", mutates_args=())
def pass_back(grad: torch.Tensor, block: int) -> torch.Tensor:
    return nudged(grad, "backward", block)


@torch.library.custom_op("planted::apply", mutates_args={"parameter"})
def apply(parameter: torch.Tensor, grad: torch.Tensor, block: int) -> None:
    parameter.copy_(nudged(parameter - 0.1 * grad, "optimizer", block))


def remember_block(ctx, inputs, output) -> None:
    ctx.block = inputs[1]


pass_through.register_autograd(
    lambda ctx, grad: (torch.ops.planted.pass_back(grad, ctx.block), None),
    setup_context=remember_block,
)


class Fragile(nn.Module):
    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.planted.pass_through(x, self.block)


class Block(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.inner = nn.Linear(32, 32)
        self.fragile = Fragile(number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.fragile(self.inner(x)))


class PlantedSGD(torch.optim.Optimizer):
    """Plain gradient descent; the blocks' inner weights are updated by the custom op."""

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        risky = {net.blocks[block].inner.weight: block for block in range(4)}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in risky:
                    torch.ops.planted.apply(parameter, parameter.grad, risky[parameter])
                else:
                    parameter.add_(parameter.grad, alpha=-group["lr"])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(number) for number in range(4))
        self.head = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


net = Net()
optimizer = PlantedSGD(net.parameters())
for step in range(3):
    state["step"] = step
    loss = net(torch.randn(16, 32)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
