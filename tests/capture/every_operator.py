"""Run every operator that torch describes, with its gradient, observed and not; name what differs.

A process of its own: what describes them also sets torch's flags.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from conftest import record_call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

# What their results hold is what was in memory before, or (least squares) depends on where it lies.
VARYING = {
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "linalg.lstsq",
    "new_empty",
    "new_empty_strided",
    "nn.functional.max_unpool2d",
}

FAILED = "failed"


def bits_of(values: Any) -> list[Any]:
    """The bytes of all tensors of a result."""
    found = []
    for tensor in tree_flatten(values)[0]:
        if isinstance(tensor, torch.Tensor):
            if tensor.layout == torch.strided:
                plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
                values = plain.view(-1).view(torch.uint8).tolist() if plain.numel() else []
                found.append((plain.dtype, tuple(plain.shape), bytes(values)))
            else:
                found.append(str(tensor))
    return found


def run(operator: Any, sample: Any) -> list[Any]:
    """One call, and the gradients of what it was given."""

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.detach().clone().requires_grad_(value.requires_grad)

    torch.manual_seed(0)
    given = tree_map(copy, (sample.input, sample.args, sample.kwargs))
    leaves = [x for x in tree_flatten(given)[0] if isinstance(x, torch.Tensor) and x.requires_grad]
    result = operator(given[0], *given[1], **given[2])
    made = [x for x in tree_flatten(result)[0] if isinstance(x, torch.Tensor) and x.requires_grad]
    if not (made and leaves and torch.is_grad_enabled()):
        return bits_of(result)
    weights = [torch.randn(x.shape, dtype=x.dtype) for x in made]
    return bits_of((result, torch.autograd.grad(made, leaves, weights, allow_unused=True)))


def answer(operator: Any, sample: Any) -> list[Any]:
    """What a call gives; some of what torch describes is not there on each machine."""
    try:
        return run(operator, sample)
    except (AssertionError, RuntimeError, TypeError) as error:
        return [FAILED, type(error).__name__, str(error)]


def samples_of(operator: Any, dtype: torch.dtype, inference: bool, most: int) -> list[Any]:
    torch.manual_seed(1)
    gradients = operator.supports_autograd and not inference
    samples = []
    for sample in operator.sample_inputs("cpu", dtype, requires_grad=gradients):
        samples.append(sample)
        if len(samples) == most:
            break
    return samples


def main() -> None:
    """Print how many operators were run, and which of them gave other bits when observed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--most", type=int, help="samples of each operator")
    words = parser.parse_args()
    samples = {
        (operator.formatted_name, str(dtype)): (
            operator,
            samples_of(operator, dtype, words.inference, words.most),
        )
        for operator in op_db
        for dtype in (torch.float32, torch.complex64)
        if operator.name not in VARYING and dtype in operator.supported_dtypes("cpu")
    }

    def work() -> Any:
        with torch.inference_mode(words.inference):
            return {
                name: [answer(operator, sample) for sample in given]
                for name, (operator, given) in samples.items()
            }

    plain, seen = work(), record_call(work).result
    answered = sum(bool(bits) and bits[0] != FAILED for given in plain.values() for bits in given)
    differing = [name for name in plain if plain[name] != seen[name]]
    print(json.dumps({"operators": len(plain), "differing": differing, "answered": answered}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
