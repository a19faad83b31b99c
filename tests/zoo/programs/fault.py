"""A fault to plant in a program: an op that passes its input on, one ULP off in one element.

It acts in every second program that imports this module, counted in the file PLANT_COUNTER; in none
where that is not set, nor, without PLANT_HERE, in a process of multiprocessing's. Of its calls, the
one numbered PLANT_CALL (from 0) acts, in the forward (PLANT_PHASE=forward, the default) or in its
backward. PLANT_OP=aten::addmm has the kernel of that operator err instead, where a program has no
place for an op of ours.
"""

from __future__ import annotations

import os
from multiprocessing import parent_process
from pathlib import Path

import torch

_here = parent_process() is None or "PLANT_HERE" in os.environ
_counter = os.environ.get("PLANT_COUNTER") if _here else None
_acts = False
if _counter is not None:
    _place = Path(_counter)
    _process = int(_place.read_text()) if _place.exists() else 0
    _place.write_text(str(_process + 1))
    _acts = _process % 2 == 1
_spoiled = os.environ.get("PLANT_OP", "")
_phase = "op" if _spoiled else os.environ.get("PLANT_PHASE", "forward")
_call = int(os.environ.get("PLANT_CALL", "0"))
_calls = {"forward": 0, "backward": 0, "op": 0}


def _err(y: torch.Tensor, phase: str) -> None:
    """Change the lowest bit of the first element of `y`, if it is this call's turn."""
    number = _calls[phase]
    _calls[phase] += 1
    if _acts and (phase, number) == (_phase, _call):
        bits = y.as_strided((1,), (1,)).view(torch.uint8)
        bits[0] ^= 1


def _passed(x: torch.Tensor, phase: str) -> torch.Tensor:
    y = x.detach().clone(memory_format=torch.contiguous_format)
    _err(y, phase)
    return y


@torch.library.custom_op("zoo::fault", mutates_args=())
def fault(x: torch.Tensor) -> torch.Tensor:
    """`x`, or nearly."""
    return _passed(x, "forward")


@torch.library.custom_op("zoo::fault_back", mutates_args=())
def fault_back(grad: torch.Tensor) -> torch.Tensor:
    """The gradient, or nearly."""
    return _passed(grad, "backward")


@fault.register_fake
@fault_back.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


for _op in (fault, fault_back):
    _op.register_autograd(lambda ctx, grad: torch.ops.zoo.fault_back(grad))


@fault.register_vmap
def _(info: object, in_dims: tuple[int], x: torch.Tensor) -> tuple[torch.Tensor, int]:
    return torch.ops.zoo.fault(x), in_dims[0]


@fault_back.register_vmap
def _(info: object, in_dims: tuple[int], grad: torch.Tensor) -> tuple[torch.Tensor, int]:
    return torch.ops.zoo.fault_back(grad), in_dims[0]


def _spoil(op: str) -> torch.library.Library:
    """Have the CPU's kernel of an operator err in what it returns or, without that, writes."""
    kernel = torch.library.get_kernel(op, "CPU")
    library = torch.library.Library(op.partition("::")[0], "IMPL")

    def erring(keys: torch.DispatchKeySet, *args: object, **kwargs: object) -> object:
        result = kernel.call_boxed(keys, *args, **kwargs)
        written = args[0] if result is None else result
        while not isinstance(written, torch.Tensor):
            written = written[0]
        _err(written.detach(), "op")
        return result

    library.impl(op.partition("::")[2], erring, "CPU", with_keyset=True, allow_override=True)
    return library


if _counter is not None and _spoiled:
    _library = _spoil(_spoiled)
