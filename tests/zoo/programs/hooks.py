"""Hooks that return values: of modules, tensors, parameters and graph nodes."""

import torch
from fault import fault
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.inner(x))
        x.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
        return self.head(x)


net = Net()
net.inner.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
net.inner.register_forward_hook(lambda module, args, output: fault(output))
net.middle.register_forward_hook(
    lambda module, args, kwargs, output: output + args[0], with_kwargs=True
)
net.middle.register_full_backward_hook(lambda module, into, outof: (into[0] * 3,))
net.middle.register_full_backward_pre_hook(lambda module, outof: (outof[0] + 0.5,))
net.inner.weight.register_hook(lambda grad: grad + 0.1 * net.inner.weight.detach())
norms = []
for parameter in net.parameters():
    parameter.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm()))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
optimizer.register_step_post_hook(lambda *_: net.head.weight.data.clamp_(-1, 1))
for _ in range(2):
    optimizer.zero_grad()
    loss = net(torch.randn(4, 8)).square().mean()
    loss.grad_fn.register_hook(lambda into, outof: (into[0] * 2,))
    loss.backward()
    optimizer.step()
print(f"{loss.item():.6f} {torch.stack(norms).sum().item():.6f}")
