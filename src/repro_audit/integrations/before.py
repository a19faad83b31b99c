"""What a training step changes: kept from before it, put back, and fingerprinted after it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parameter import is_lazy

from repro_audit import engine
from repro_audit.capture import parts
from repro_audit.capture.generators import states
from repro_audit.errors import UnsupportedTensorError
from repro_audit.integrations.generators import remembered
from repro_audit.integrations.tensors import nested

RETURNED = "the returned value"


class Before:
    """The generators, buffers and gradients that a step of `model` begins with.

    Costs a copy of the buffers and gradients, in their devices' memory, and a read of them and of
    the parameters. What a step reads or writes elsewhere is not known here. Raises
    UnsupportedTensorError, with its name, for a buffer or gradient that `came_of` cannot take.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        # A generator may be there only once it was asked for.
        for device in {parameter.device for parameter in model.parameters()}:
            engine.generator_of(device)
        self._put_generators_back = remembered()
        self._parameters = dict(model.named_parameters())
        self._lazy = any(map(is_lazy, (*self._parameters.values(), *model.buffers())))
        self._versions = {name: _version(p) for name, p in self._parameters.items()}
        self._values = _values(self._parameters)
        self._buffers = [(module, dict(module._buffers)) for module in model.modules()]
        # The very tensors are put back: of DistributedDataParallel a gradient may be a view into a
        # bucket, and none is not the same as zeros.
        self._gradients = [(p, p.grad) for p in self._parameters.values()]
        held = _held(model)
        digests = _digests(held)
        with engine.unseen():
            self._kept = {name: _Kept(tensor, digests[name]) for name, tensor in held.items()}

    def put_back(self) -> None:
        """Let all be as it was.

        Costs a read of the buffers and gradients. A tensor that holds what it held is not written:
        a backward may still be to come that saved it before the step.
        """
        with engine.unseen():
            for kept in self._kept.values():
                kept.put_memory_back()
            digests = _digests({name: kept.tensor for name, kept in self._kept.items()})
            for name, kept in self._kept.items():
                if digests[name] != kept.digest:
                    kept.write()
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
        """Parameters that were written since, by their names: what an optimizer does.

        Costs a read of the parameters: through `.data` one is written without a new version. Of
        one that has no bits of its own the version alone tells.
        """
        now = _values({name: self._parameters[name] for name in self._values})
        return [
            name
            for name, parameter in self._parameters.items()
            if (self._versions[name] is not None and _version(parameter) != self._versions[name])
            or (name in now and now[name] != self._values[name])
        ]

    def made_parameters(self, model: torch.nn.Module) -> bool:
        """Whether parameters were made since, as lazy modules do when they are first called."""
        now = dict(model.named_parameters())
        return self._lazy or any(now[name] is not self._parameters.get(name) for name in now)


class _Kept:
    """A tensor, and what it holds now."""

    def __init__(self, tensor: torch.Tensor, digest: bytes) -> None:
        self.tensor = tensor
        self.digest = digest
        self._version = _version(tensor)
        # A step may give it other memory, of another shape: `buffer.data = torch.cat(...)`.
        self._memory = tensor.data if _dense(tensor) else None
        self._copy = None if _expanded(tensor) else tensor.clone()

    def put_memory_back(self) -> None:
        """Let it be of the memory and the shape that it was of."""
        if self._memory is not None and _place(self.tensor) != _place(self._memory):
            self.tensor.data = self._memory

    def write(self) -> None:
        """Let it hold what it held."""
        if self._copy is None:
            return
        # Where the step's own write counts as none (`.data`), this one is not to end a backward
        # that a program without a guard gets through. After any other a new version is the truth:
        # a graph of the first call must not take these values for those that it saved.
        if self.tensor.is_inference():
            around: AbstractContextManager[object] = torch.inference_mode()
        elif _version(self.tensor) == self._version:
            around = _unsafe_preserve_version_counter(self.tensor)
        else:
            around = contextlib.nullcontext()
        with around:
            self.tensor.copy_(self._copy)


def check(model: torch.nn.Module, returned: Any = None) -> None:
    """Raise UnsupportedTensorError, with its name, for what a guard could neither keep nor compare.

    Costs a read of the model's buffers and of the tensors in what a step returned.
    """
    for name, tensor in (_buffers(model) | dict(nested(returned, RETURNED))).items():
        _check(name, tensor)


def came_of(model: torch.nn.Module, returned: Any) -> dict[str, bytes]:
    """16 bytes for all that a step left: gradients, buffers, what it returned, and generators.

    Costs one read of them, and waits for their devices. Sparse and distributed tensors count by
    what they are made of, meta tensors by their shape. Raises UnsupportedTensorError, with its
    name, for another that has no bits of its own (a quantized one).
    """
    found = _digests(_held(model) | dict(nested(returned, RETURNED)))
    return found | {f"generator {name}": digest for name, digest in states()}


def _held(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's gradients and buffers, by their names."""
    named = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return named | _buffers(model)


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if not is_lazy(buffer)}


def _values(parameters: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """16 bytes for each parameter that has bits of its own."""
    known = {name: p for name, p in parameters.items() if not is_lazy(p)}
    try:
        return _digests(known)
    except UnsupportedTensorError:
        return _digests({name: p for name, p in known.items() if _refusal(p) is None})


def _digests(named: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """16 bytes for each tensor: its dtype, its layout, its shape and its bits."""
    with engine.unseen():
        leaves = {name: _leaves(tensor) for name, tensor in named.items()}
        try:
            flat = engine.tensor_digests(leaf for each in leaves.values() for leaf in each)
        except UnsupportedTensorError:
            for name, tensor in named.items():
                _check(name, tensor)
            raise
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
    return found


def _check(name: str, tensor: torch.Tensor) -> None:
    error = _refusal(tensor)
    if error is None:
        return
    if name.startswith(RETURNED):
        what, way_out = name, "Let the step return it in another form, or not at all."
    else:
        what = f"the model's {name}"
        way_out = "Guard the modules that have none of its kind, in a torch.nn.ModuleList."
    raise UnsupportedTensorError(f"{what} cannot be guarded. {error} {way_out}") from error


def _refusal(tensor: torch.Tensor) -> UnsupportedTensorError | None:
    """Why a tensor has no bits of its own, if so."""
    try:
        with engine.unseen():
            for leaf in _leaves(tensor):
                engine.fingerprint(leaf)
    except UnsupportedTensorError as error:
        return error
    return None


def _leaves(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors with bits that one is made of: itself, as a rule."""
    if not parts.has_bits(tensor):
        return []
    made_of = parts.of(tensor)
    return [tensor] if made_of is None else [leaf for part in made_of for leaf in _leaves(part)]


def _expanded(tensor: torch.Tensor) -> bool:
    """Whether elements share memory: torch refuses to write to such a tensor."""
    if not _dense(tensor):
        return False
    return any(s == 0 and n > 1 for n, s in zip(tensor.shape, tensor.stride(), strict=True))


def _dense(tensor: torch.Tensor) -> bool:
    """Whether its elements lie in a memory of its own, by strides."""
    return parts.has_bits(tensor) and parts.of(tensor) is None


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    where = (tensor.device, tensor.data_ptr())
    return (*where, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor was written; of one made in inference mode nobody knows."""
    return None if is_lazy(tensor) or tensor.is_inference() else tensor._version
