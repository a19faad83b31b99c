"""Recording takes as much memory for a long program as for a short one."""

from __future__ import annotations

import json

import pytest

# Counted are Python's objects, and what the process has at its peak. What is known of autograd's
# nodes has a bound of its own, far above what these steps make.
RECORDING = """
import gc, json, resource, sys, tracemalloc
import torch, repro_audit
from repro_audit.capture import causes

causes._LEAST = 50
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
optimizer = torch.optim.SGD(net.parameters(), 0.01)

def train(recording, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        views = [part.exp().view(-1) for part in torch.randn(6, 4).unbind()]
        x = torch.empty(6, 4).copy_(torch.stack(views))
        net(x).square().mean().backward()
        optimizer.step()
        recording.step()
    recording._recorder.flush()
    gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return tracemalloc.get_traced_memory()[0], peak

with repro_audit.record("long.audit", level=sys.argv[1]) as recording:
    train(recording, 60)
    tracemalloc.start()
    one = train(recording, STEPS)
    eight = train(recording, 7 * STEPS)
    events = recording._recorder.events
print(json.dumps({"events": events, "one": one, "eight": eight}))
"""


@pytest.mark.parametrize("level", ["ops", "modules"])
def test_eight_times_the_steps_take_no_more_memory(plainly, program, level: str) -> None:
    program("train.py", RECORDING.replace("STEPS", "40"))
    done = plainly("train.py", level)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["events"] > {"ops": 20_000, "modules": 2_000}[level]
    (traced, peak), (later, later_peak) = found["one"], found["eight"]
    # Some ten bytes an event: what has a bound may not have come to it.
    assert later - traced < 180_000
    assert later_peak - peak < 4 << 20
