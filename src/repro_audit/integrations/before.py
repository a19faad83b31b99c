"""What a training step changes: kept from before it, put back, and fingerprinted after it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from repro_audit import engine
from repro_audit.capture import parts
from repro_audit.capture.generators import states
from repro_audit.integrations.generators import remembered
from repro_audit.integrations.tensors import nested

RETURNED = "the returned value"


class Before:
    """The generators, buffers and gradients that a step of `model` begins with.

    Costs a copy of the buffers and gradients, in their devices' memory. What a step reads or writes
    elsewhere is not known here.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        # A generator may be there only once it was asked for.
        for device in {parameter.device for parameter in model.parameters()}:
            engine.generator_of(device)
        self._put_generators_back = remembered()
        self._parameters = {
            name: (parameter, None if is_lazy(parameter) else parameter._version)
            for name, parameter in model.named_parameters()
        }
        self._buffers = [(module, dict(module._buffers)) for module in model.modules()]
        # The very tensors are put back: of DistributedDataParallel a gradient may be a view into a
        # bucket, and none is not the same as zeros.
        self._gradients = [(p, p.grad) for p, _ in self._parameters.values()]
        held = [tensor for _, buffers in self._buffers for tensor in buffers.values()]
        held += [gradient for _, gradient in self._gradients]
        once = {id(tensor): tensor for tensor in held if tensor is not None}
        with engine.unseen():
            self._copies = [(t, t.clone()) for t in once.values() if not _expanded(t)]

    def put_back(self) -> None:
        """Let all be as it was."""
        with engine.unseen():
            for tensor, copy in self._copies:
                tensor.copy_(copy)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        for module, buffers in self._buffers:
            now = module._buffers
            if any(now.get(name) is not buffer for name, buffer in buffers.items()) or (
                len(now) != len(buffers)
            ):
                now.clear()
                now.update(buffers)
        self._put_generators_back()

    def stepped(self) -> list[str]:
        """Parameters that were written since, by their names: what an optimizer does."""
        return [
            name
            for name, (parameter, version) in self._parameters.items()
            if version is not None and parameter._version != version
        ]

    def made_parameters(self, model: torch.nn.Module) -> bool:
        """Whether parameters were made since, as lazy modules do when they are first called."""
        lazy = any(version is None for _, version in self._parameters.values())
        now = dict(model.named_parameters())
        return lazy or any(now[name] is not self._parameters.get(name, (None,))[0] for name in now)


def came_of(model: torch.nn.Module, returned: Any) -> dict[str, bytes]:
    """16 bytes for all that a step left: gradients, buffers, what it returned, and generators.

    Costs one read of them, and waits for their devices. Sparse and distributed tensors count by
    what they are made of, meta tensors by their shape. Raises UnsupportedTensorError for others
    that have no bits of their own (quantized ones).
    """
    named = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    named |= dict(model.named_buffers())
    named |= dict(nested(returned, RETURNED))
    with engine.unseen():
        leaves = {name: _leaves(tensor) for name, tensor in named.items()}
        flat = engine.tensor_digests(leaf for each in leaves.values() for leaf in each)
    digests = iter(flat)
    found: dict[str, bytes] = {}
    for name, tensor in named.items():
        state = hashlib.blake2b(f"{tensor.dtype} {tensor.layout}".encode(), digest_size=16)
        # Of a nested tensor the shape is no list of numbers.
        for part in leaves[name] or [tensor]:
            state.update(f" {tuple(part.shape)}".encode())
        for _ in leaves[name]:
            state.update(next(digests))
        found[name] = state.digest()
    return found | {f"generator {name}": digest for name, digest in states()}


def _leaves(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors with bits that one is made of: itself, as a rule."""
    if not parts.has_bits(tensor):
        return []
    made_of = parts.of(tensor)
    return [tensor] if made_of is None else [leaf for part in made_of for leaf in _leaves(part)]


def _expanded(tensor: torch.Tensor) -> bool:
    """Whether elements share memory: torch refuses to write to such a tensor."""
    if tensor.layout is not torch.strided:
        return False
    return any(s == 0 and n > 1 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
