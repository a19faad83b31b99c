"""Training programs that lose something when they resume; told so, they do not."""

from __future__ import annotations

SCALED = """
model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
    if "forget" not in sys.argv:
        scaler.load_state_dict(saved["scaler"])
for step in range(start, 18):
    with torch.autocast("cpu", dtype=torch.float16):
        loss = model(inputs(step)).float().square().mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    save(step, model=model.state_dict(), scaler=scaler.state_dict())
"""
# Three batches make a step; what is saved within one has lost the gradients so far.
ADDED_UP = """
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
every = 4 if "forget" in sys.argv else 3
for batch in range(start, 18):
    (model(inputs(batch)).square().mean() / 3).backward()
    if (batch + 1) % 3 == 0:
        optimizer.step()
        optimizer.zero_grad()
    if (batch + 1) % every == 0:
        save(batch, model=model.state_dict())
"""
EPOCHS = """
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
table = TensorDataset(torch.cat([inputs(n) for n in range(2)]))
sampler = DistributedSampler(table, num_replicas=1, rank=0, seed=1)
if saved:
    model.load_state_dict(saved["model"])
    start = saved["step"]
for number, epoch in enumerate(range(start, 4)):
    sampler.set_epoch(number if "forget" in sys.argv else epoch)
    for (x,) in DataLoader(table, 8, sampler=sampler):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    save(epoch, model=model.state_dict())
"""
