"""A program for test_causes: a device whose backward runs in a thread of autograd's own.

The device keeps its tensors' elements in NumPy arrays; what counts is that torch takes it for an
accelerator. Prints, for every backward op, its name, whether the main thread ran it, the node that
ran, and the op that the recorder took for its cause.
"""

import importlib.util
import json
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("abacus")


class Abacus(torch.Tensor):
    @staticmethod
    def __new__(cls, elements):
        made = torch._C._acc.create_empty_tensor(elements.shape, torch.float32)
        made.__class__ = cls
        return made

    def __init__(self, elements):
        self.elements = elements


def on_device(op):
    return torch.library.impl(f"aten::{op}", "privateuseone")


def elementwise(op, function):
    on_device(op)(lambda *tensors: Abacus(function(*(t.elements for t in tensors))))


elementwise("mul.Tensor", np.multiply)
elementwise("add.Tensor", np.add)
elementwise("neg", np.negative)
elementwise("detach", np.copy)
on_device("sum")(lambda t, **_: Abacus(np.asarray(t.elements.sum(), np.float32)))
on_device("ones_like")(lambda t, **_: Abacus(np.ones_like(t.elements)))
on_device("expand")(lambda t, size, **_: Abacus(np.broadcast_to(t.elements, size)))
on_device("empty_strided")(lambda size, stride, **_: Abacus(np.zeros(size, np.float32)))
on_device("empty.memory_format")(lambda size, **_: Abacus(np.zeros(size, np.float32)))


@on_device("_copy_from")
def copy_from(source, target, non_blocking=False):
    target.elements = source.numpy()


class Nodes(TorchDispatchMode):
    ran: list = []  # noqa: RUF012

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        node = torch._C._current_autograd_node()
        here = threading.current_thread() is threading.main_thread()
        self.ran.append((here, node and node.name()))
        return func(*args, **(kwargs or {}))


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.neg()

    @staticmethod
    def backward(ctx, grad):
        return grad.neg()


def work():
    on_host = torch.ones(2, requires_grad=True)
    host = on_host.exp().sin()
    x = torch.full((2,), 3.0).to("abacus").requires_grad_()
    (slope,) = torch.autograd.grad((x * x).neg().sum(), x, create_graph=True)
    Negated.apply(slope * x).sum().backward()
    (host.cos() * 2).sum().backward()


spec = importlib.util.spec_from_file_location("seen", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(spec)
sys.modules["seen"] = conftest
spec.loader.exec_module(conftest)
with Nodes():
    run = conftest.record_call(work)
by_index = {event.index: event for event in run.seen}
ops = [event for event in run.seen if event.op.startswith("aten.")]
for event, (here, node) in zip(ops, Nodes.ran, strict=True):
    if node is not None:
        cause = None if event.cause is None else by_index[event.cause].op
        print(json.dumps([event.op, here, node, cause, event.call_site]))
