"""Tensors that have neither one shape nor plain memory, in every kind of audit."""

from __future__ import annotations

import pytest

PADDED = """
import torch, warnings
warnings.simplefilter("ignore")
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
net = torch.nn.TransformerEncoder(layer, 1).eval()
mask = torch.zeros(3, 6, dtype=torch.bool)
mask[0, 4:] = True
with torch.no_grad():
    print(net(torch.randn(3, 6, 16), src_key_padding_mask=mask).sum().item())
"""
JAGGED = """
import torch, warnings
warnings.simplefilter("ignore")
torch.manual_seed(0)
net = torch.nn.Linear(8, 16)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(2):
    rows = [torch.randn(n, 8) for n in (3, 5, 2)]
    q = net(torch.nested.nested_tensor(rows, layout=torch.jagged))
    q = (q * 1.0).unflatten(-1, (2, 8)).transpose(1, 2)
    out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    loss = out.transpose(1, 2).flatten(-2).values().square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
"""
ZEROS = """
import torch
torch.manual_seed(0)
print((torch._efficientzerotensor(3) + torch.randn(3)).sum().item())
print(torch.func.jacfwd(torch.sin)(torch.randn(3)).sum().item())
"""
# The tracer fixes a size that it is asked for, and refuses a program that is to take any.
EXPORTED = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(0))
sizes = ({0: torch.export.Dim("rows", min=1, max=64)},)
made = torch.export.export(net, (torch.randn(2, 4),), dynamic_shapes=sizes)
print(made.module()(torch.randn(7, 4)).sum().item())
"""


@pytest.mark.parametrize("source", [PADDED, JAGGED, ZEROS, EXPORTED])
def test_they_are_let_pass(audit, program, first_run, source: str) -> None:
    program("train.py", source)
    result = audit("train.py", "--lockstep", "--self-check", "--no-confirm")
    assert result.code == 0, (result.stdout, result.stderr)
    result = audit("record", "train.py", "-q", "-o", "one.audit", "--capture", "full")
    assert (result.code, result.stderr) == (0, "")
    result = audit("verify", "one.audit", "--same-start")
    assert result.code == 0, (result.stdout, result.stderr)
    assert result.stdout.startswith("IDENTICAL")


def test_a_fault_beside_nested_tensors_is_named(audit, program) -> None:
    at = "    optimizer.zero_grad()\n"
    fault = "    loss = loss + torch.ones(4).mul_(__import__('os').urandom(1)[0] / 2**20).mean()\n"
    program("train.py", JAGGED.replace(at, fault + at))
    result = audit("train.py")
    assert result.code == 1
    assert result.stdout.startswith("DIVERGENT  step 0 · forward · aten.mul_  (at train.py:12)")
    assert "argument 2 is " in result.stdout
