"""Functorch: per-sample gradients, an ensemble, products with Jacobians, a Hessian."""

import torch
from fault import fault, fault_back
from torch import nn
from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

torch.manual_seed(0)


class Passed(torch.autograd.Function):
    """The fault, in the style that functorch takes."""

    @staticmethod
    def forward(x, op):
        return op(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return Passed.apply(grad, fault_back), None

    @staticmethod
    def jvp(ctx, tangent, _):
        return tangent.clone()

    @staticmethod
    def vmap(info, in_dims, x, op):
        return Passed.apply(x, op), in_dims[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(Passed.apply(self.inner(x).tanh(), fault))


net = Net()


def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return functional_call(net, parameters, (x,)).square().sum()


x = torch.randn(3, 4)
parameters = {name: value.detach() for name, value in net.named_parameters()}
for _ in range(2):
    samples, values = vmap(grad_and_value(loss), in_dims=(None, 0))(parameters, x)
    parameters = {name: p - 0.1 * samples[name].mean(0) for name, p in parameters.items()}

ensemble, _ = stack_module_state([Net() for _ in range(3)])
scores = vmap(lambda state, x: functional_call(net, state, (x,)), in_dims=(0, None))(ensemble, x)


def smooth(x: torch.Tensor) -> torch.Tensor:
    return (x.tanh() @ net.inner.weight.t()).sin().sum()


slope, along = jvp(smooth, (x,), (torch.ones_like(x),))
_, pull = vjp(lambda x: net(x).square(), x)
_, push = linearize(smooth, x)
curve = hessian(smooth)(x[0])
rows = jacrev(grad(smooth))(x[0])
numbers = (values.sum(), scores.sum(), along, pull(torch.ones(3, 1))[0].sum(), push(x), rows.sum())
print(" ".join(f"{number.item():.6f}" for number in (*numbers, curve.sum())))
