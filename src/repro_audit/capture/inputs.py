"""What an operator that a zoom asks for is given: fingerprints, and the call kept whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit import engine
from repro_audit.capture.calls import Call, plain_arguments
from repro_audit.capture.generators import digest_of
from repro_audit.capture.guards import paused
from repro_audit.capture.operators import tensors_in

if TYPE_CHECKING:
    import torch

    from repro_audit.capture.events import Events
    from repro_audit.capture.operators import Operator


def take_inputs(
    recorder: Events,
    index: int,
    operator: Operator,
    args: Any,
    kwargs: Any,
    filled: torch.Tensor | None,
) -> bool:
    """Fingerprint an operator's arguments before it runs: tensors one by one, numbers together.

    And keep the call, so that it can be made again.

    What it overwrites unread is no input, nor is what it has `filled` then. False for an operator
    that brings memory in: what it is given is what it returns; and while a graph is captured.
    """
    if operator.outside:
        return False
    if engine.capturing():
        # Neither arguments nor generators have anything to tell in a graph's capture.
        return False
    inputs = recorder.sink.inputs
    read = operator.read(args, kwargs)
    position = -1
    for position, tensor in enumerate(tensors_in(read)):
        if tensor is not filled and not recorder.memory.is_noise(tensor):
            recorder.readings.take(inputs, index, position, tensor)
    digest = digest_of(plain_arguments(read))
    recorder.readings.value(inputs, index, position + 1, digest, "arguments")
    with paused():
        call = Call(operator.name, args, kwargs or {}, operator.random, operator.scratch)
        recorder.readings.keep_call(index, call)
    return True
