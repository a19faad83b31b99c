"""A fault to plant in a program: an op that passes its input on, one ULP off in one element.

It acts in every second process that imports this module, counted in the file PLANT_COUNTER; in none
where that is not set. Of a program's calls, the one numbered PLANT_CALL (from 0) acts, in the
forward (PLANT_PHASE=forward, the default) or in its backward.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

_counter = os.environ.get("PLANT_COUNTER")
_acts = False
if _counter is not None:
    _place = Path(_counter)
    _process = int(_place.read_text()) if _place.exists() else 0
    _place.write_text(str(_process + 1))
    _acts = _process % 2 == 1
_phase = os.environ.get("PLANT_PHASE", "forward")
_call = int(os.environ.get("PLANT_CALL", "0"))
_calls = {"forward": 0, "backward": 0}


def _passed(x: torch.Tensor, phase: str) -> torch.Tensor:
    y = x.detach().clone(memory_format=torch.contiguous_format)
    number = _calls[phase]
    _calls[phase] += 1
    if _acts and (phase, number) == (_phase, _call):
        bits = y.view(-1).view(torch.uint8)
        bits[0] ^= 1
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


fault.register_autograd(lambda ctx, grad: torch.ops.zoo.fault_back(grad))
