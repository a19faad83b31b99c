"""Graphs used more than once, cut and switched: retain_graph, nested grads, detach_, freezing."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.inner(x).tanh()))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

# Two losses of one graph, and the gradient of a gradient of a gradient.
first, second = net(torch.randn(4, 8)).square().mean(0)
first.backward(retain_graph=True)
second.backward()
optimizer.step()
x = torch.randn(3, requires_grad=True)
slope = x.pow(4).sum()
for _ in range(3):
    (slope,) = torch.autograd.grad(slope.sum(), x, create_graph=True)

# An inner optimization whose graph the outer one goes through.
fast = dict(net.named_parameters())
support, query = torch.randn(2, 4, 8)
inner = torch.func.functional_call(net, fast, support).square().mean()
grads = torch.autograd.grad(inner, fast.values(), create_graph=True)
fast = {name: p - 0.1 * g for (name, p), g in zip(fast.items(), grads, strict=True)}
outer = torch.func.functional_call(net, fast, query).square().mean()
optimizer.zero_grad(set_to_none=False)
outer.backward(inputs=list(net.parameters()))
optimizer.step()

# A state carried over steps, its graph cut; then only the head is trained.
net.inner.requires_grad_(False)
state = torch.zeros(4, 8)
for _ in range(2):
    state = state + net.inner(torch.randn(4, 8)) * net.head.weight.mean()
    loss = net.head(state).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state.detach_()
with torch.autograd.graph.save_on_cpu():
    late = net(torch.randn(4, 8)).mean()
torch.autograd.backward([late, net.head.weight.norm()])
with torch.set_grad_enabled(False):
    late = late + net.head.weight.grad.sum()
print(f"{slope.sum().item():.6f} {outer.item():.6f} {loss.item():.6f} {late.item():.6f}")
