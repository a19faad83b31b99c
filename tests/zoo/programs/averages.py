"""Weight averages (EMA, SWA), learning rate schedules, gradient clipping."""

import torch
from fault import fault
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(fault(self.norm(self.inner(x)).relu()))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
warm, cool = LinearLR(optimizer, total_iters=2), CosineAnnealingLR(optimizer, T_max=4)
schedule = SequentialLR(optimizer, [warm, cool], milestones=[2])
late = SWALR(optimizer, swa_lr=0.05, anneal_epochs=1)
ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
swa = AveragedModel(net)
data = [torch.randn(4, 8) for _ in range(2)]
for epoch in range(3):
    for x in data:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        ema.update_parameters(net)
    (late if epoch else schedule).step()
    swa.update_parameters(net)
update_bn(data, swa)
print(f"{loss.item():.6f} {ema(data[0]).sum().item():.6f} {swa(data[0]).sum().item():.6f}")
