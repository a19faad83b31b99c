"""Drives a model file or a bare `nn.Module` class: builds, feeds, steps.

A model file defines `build_model()`, and optionally `build_inputs()` (a tensor, a tuple of
positional or a dict of keyword arguments), `build_loss()` (a callable of the model's output and the
inputs that returns a scalar) and `build_optimizer(model)`. Each step is forward, backward and, with
an optimizer, its step. Without `build_loss` the loss is the output's own `loss`, else the mean
square of its floating-point tensors.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UsageError
from repro_audit.model import Plan, Target
from repro_audit.replicate.target import parse_input

if TYPE_CHECKING:
    import torch

# Enough for an optimizer's state to matter, few enough for a first look.
STEPS_WITH_OPTIMIZER = 3
STEPS_WITHOUT = 1


def run_model(plan: Plan, stamp: Callable[[], None] | None = None) -> None:
    """Build the plan's model and run so many steps of it (3 with an optimizer, else 1).

    What the plan says of device, dtype, batch and compilation is done before the first one. `stamp`
    is called before each step, and after the last.
    """
    target, device = plan.target, plan.device
    module = _load(target)
    import torch

    if target.kind == "class":
        model = _made(getattr(module, target.name), target)
    else:
        model = module.build_model()
    if not isinstance(model, torch.nn.Module):
        source = target.name if target.kind == "class" else "build_model()"
        raise UsageError(
            f"{source} of {target.path} gave a {type(model).__name__}, not a torch.nn.Module. "
            "Let it give the model."
        )
    inputs = _inputs(module, target)
    if plan.batch is not None:
        inputs = _rows(inputs, plan.batch, plan.rows or plan.batch, target)
    if device is not None:
        _check_device(device)
        model = model.to(device)
        inputs = _moved(inputs, device)
    if plan.dtype is not None:
        dtype = getattr(torch, plan.dtype)
        model = model.to(dtype)
        inputs = _each(inputs, lambda x: x.to(dtype) if x.is_floating_point() else x)
    optimizer = module.build_optimizer(model) if hasattr(module, "build_optimizer") else None
    loss_of = module.build_loss() if hasattr(module, "build_loss") else _default_loss
    if plan.compile is not None:
        # Not the module: wrapped, its parts would have other names than those of an eager one.
        model.forward = torch.compile(model.forward, backend=plan.compile)
    default = STEPS_WITHOUT if optimizer is None else STEPS_WITH_OPTIMIZER
    for _ in range(plan.steps or default):
        if stamp is not None:
            stamp()
        _step(model, inputs, loss_of, optimizer)
    if stamp is not None:
        stamp()


def _rows(inputs: Any, batch: int, rows: int, target: Target) -> Any:
    """The first `batch` rows of the inputs, which must have `rows`.

    How many there are is told by the first input; what has another first dimension, such as a mask
    over positions, has no rows of the batch and stays as it is. Where there are as many positions
    the two are not to be told apart in a second input, which is misuse.
    """
    tensors = [x for x in _tensors(inputs) if x.dim()]
    there = len(tensors[0]) if tensors else 0
    source = "--input" if target.inputs else "build_inputs()"
    others = [x for x in tensors[1:] if len(x) == there]
    if others and any(there in x.shape[1:] for x in tensors):
        raise UsageError(
            f"the inputs that {source} gives {target.label} have {there} rows and {there} "
            f"positions, which look the same: give {source} another number of rows"
        )
    if there < rows:
        raise UsageError(
            f"batch={rows} asks for {rows} rows, and the inputs that {source} gives {target.label} "
            f"have {there}. Let it give {rows}, or ask for smaller batches."
        )
    # A copy, as a program would have it: a view of a larger tensor may lie otherwise in memory.
    return _each(inputs, lambda x: x[:batch].clone() if x.dim() and len(x) == there else x)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of inputs, in order."""
    found: list[torch.Tensor] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        found.append(x)
        return x

    _each(value, note)
    yield from found


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Inputs with each of their tensors changed."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _rebuilt(value, [_each(item, change) for item in value])
    return value


def _rebuilt(value: Any, items: list[Any]) -> Any:
    """A tuple or list like `value` of other items; a named tuple takes them one by one."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _made(cls: Any, target: Target) -> Any:
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise UsageError(
            f"{target.name}() cannot be made without its arguments: {error}. "
            f"Make it in a function build_model() of {target.path}, and audit that: "
            f"repro-audit {target.path}"
        ) from error
    return cls()


def _check_device(device: str) -> None:
    """Raise UsageError where torch has no such device here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UsageError(
            f"torch has no device {device} here: {reason}. Leave --device out, or use --device cpu."
        ) from error


def _step(
    model: torch.nn.Module,
    inputs: Any,
    loss_of: Callable[[Any, Any], torch.Tensor],
    optimizer: Any,
) -> None:
    (model if optimizer is None else optimizer).zero_grad()
    if isinstance(inputs, dict):
        output = model(**inputs)
    elif isinstance(inputs, tuple | list):
        output = model(*inputs)
    else:
        output = model(inputs)
    loss = loss_of(output, inputs)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    if optimizer is not None:
        optimizer.step()


def _load(target: Target) -> Any:
    path = os.path.abspath(target.path)  # noqa: PTH100 - resolve() would follow a link
    sys.argv = [target.path, *target.args]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    name = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{target.path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _inputs(module: Any, target: Target) -> Any:
    if not target.inputs and hasattr(module, "build_inputs"):
        return module.build_inputs()
    import torch

    # The audit's own draw: the same in every mode, whatever generators the program seeds.
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for text in target.inputs:
        spec = parse_input(text)
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point or dtype.is_complex:
            tensors.append(torch.randn(spec.shape, generator=generator).to(dtype))
        else:
            high = 2 if dtype is torch.bool else spec.high
            tensors.append(torch.randint(0, high, spec.shape, generator=generator).to(dtype))
    return tuple(tensors)


def _moved(value: Any, device: str) -> Any:
    if hasattr(value, "to"):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _rebuilt(value, [_moved(item, device) for item in value])
    return value


def _default_loss(output: Any, inputs: Any) -> torch.Tensor:
    loss = getattr(output, "loss", None)
    if loss is not None:
        found: torch.Tensor = loss
        return found
    squares = [tensor.float().square().mean() for tensor in _floating(output)]
    if not squares:
        raise UsageError(
            "the model returned no floating-point tensor to make a loss of: define build_loss()"
        )
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return total


def _floating(output: Any) -> Iterator[torch.Tensor]:
    if hasattr(output, "is_floating_point"):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _floating(value)
    elif isinstance(output, tuple | list):
        for item in output:
            yield from _floating(item)
