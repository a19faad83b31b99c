"""Plants one fault in the program that imports it, as the variable PLANT says, in JSON.

The fault acts in every second process that imports this module (numbered by directories in
PLANT_PROCESSES), in every one where that is not set. PLANT_SAID is a file that gets a line when it
has acted. PLANT_LOG has the program watched instead (`watching.py`).

| `where` | what errs |
|---|---|
| `kernel` | call `call` of the CPU's kernel of `op`: output `position` gets a `kind` of fault |
| `after` | the same call draws a number of torch's when it is done |
| `nothing` | nothing, though the kernel is wrapped |
| `sample` | the sample fetched as number `call`: its first field gets a `kind` of fault |
| `order` | two samples of the batch fetched as number `call` change places |
| `draw` | before step `call` a number is drawn from generator `which` |
| `seed` | generator `which` gets another seed |

Kinds: `bit` (the lowest of one element), `swap` (two elements that differ), `zero` (negated). The
element is `element`, or the next one that the kind can do something with.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

_plant: dict[str, Any] = json.loads(os.environ.get("PLANT", "{}"))
_where = _plant.get("where")
_log = os.environ.get("PLANT_LOG")
# Their schemas hide that they write to these arguments.
_HIDDEN = {"aten::native_batch_norm": (3, 4)}
# Results that are a workspace, of which a part is never written.
_SCRATCH = {"aten::mkldnn_rnn_layer": (3,)}


def _acts() -> bool:
    processes = os.environ.get("PLANT_PROCESSES")
    if _where is None or processes is None:
        return _where is not None
    number = 0
    while True:
        try:
            # Making one tells its number in one go, and opens no file that another run wrote.
            os.mkdir(os.path.join(processes, str(number)))  # noqa: PTH102, PTH118
        except FileExistsError:
            number += 1
        else:
            return number % 2 == 1


acts = _acts()


def say(**what: Any) -> None:
    """Note what was done."""
    place = os.environ.get("PLANT_SAID")
    if place is not None:
        line = json.dumps(what).encode() + b"\n"
        to = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(to, line)
        os.close(to)


# -- one tensor or array ----------------------------------------------------------------------


def bits_of(values: np.ndarray) -> np.ndarray:
    """The elements of an array as unsigned numbers, in row-major order."""
    return np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")


def _suits(values: np.ndarray, kind: str) -> np.ndarray:
    """Which elements a kind of fault can do something with."""
    flat = np.ascontiguousarray(values).reshape(-1)
    floating = flat.dtype.kind == "f"
    if kind == "zero":
        return (flat == 0) & floating
    if kind == "swap":
        bits = bits_of(flat)
        return np.full(flat.shape, bool((bits != bits[:1]).any()))
    return np.isfinite(flat) if floating else np.full(flat.shape, True)


def kinds_for(values: np.ndarray) -> list[str]:
    """The kinds of fault that change these values."""
    return [kind for kind in ("bit", "swap", "zero") if _suits(values, kind).any()]


def _next(suits: np.ndarray, element: int) -> int:
    places = np.flatnonzero(suits)
    later = places[places >= element % len(suits)]
    return int(later[0] if len(later) else places[0])


def spoil(values: np.ndarray, kind: str, element: int) -> list[int]:
    """Change an array in place; the flat indices of the elements that are now others."""
    flat = values.reshape(-1)
    bits = bits_of(flat)
    suits = _suits(flat, kind)
    if not suits.any():
        return []
    at = _next(suits, element)
    where = [at]
    if kind == "swap":
        where.append(_next(bits != bits[at], at + 1))
        bits[where] = bits[where[::-1]]
    elif kind == "bit":
        bits[at] ^= 1
    else:
        bits[at] ^= bits.dtype.type(1 << (8 * bits.itemsize - 1))
    for changed in where:
        # Written one by one: the array may be a view of others' memory.
        values[np.unravel_index(changed, values.shape)] = bits.view(flat.dtype)[changed]
    return sorted(where)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as an array."""
    return tensor.detach().numpy()


# -- kernels ----------------------------------------------------------------------------------


def schema_of(op: str) -> Any:
    """The schema of `aten::add.Tensor`."""
    name, _, overload = op.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, name), overload or "default")._schema


def written_by(op: str, args: Any, kwargs: Any, result: Any) -> list[torch.Tensor]:
    """The tensors that a call wrote: arguments first, then results; no views."""
    schema = schema_of(op)
    found: list[Any] = []
    for at, argument in enumerate(schema.arguments):
        writes = argument.alias_info is not None and argument.alias_info.is_write
        if writes or at in _HIDDEN.get(op, ()):
            found.append(args[at] if at < len(args) else kwargs.get(argument.name))
    results = result if len(schema.returns) > 1 else (result,)
    for at, (returned, value) in enumerate(zip(schema.returns, results, strict=False)):
        if returned.alias_info is None and at not in _SCRATCH.get(op, ()):
            found.append(value)
    lists = [value if isinstance(value, list | tuple) else [value] for value in found]
    return [value for some in lists for value in some if isinstance(value, torch.Tensor)]


def _number(value: float, args: Any) -> torch.Tensor:
    """A number that stood for a tensor comes as a number, and must be a tensor again.

    Of the type that it takes on beside the others.
    """
    beside = next((other for other in args if isinstance(other, torch.Tensor)), None)
    if beside is None or isinstance(value, bool):
        return torch.from_numpy(np.asarray(value))
    # By NumPy: an operator of torch's would be counted.
    kind = array_of(beside).dtype
    fits = kind.kind == "f" or isinstance(value, int)
    return torch.from_numpy(np.asarray(value, dtype=kind if fits else np.float32))


class Kernel:
    """The CPU's kernel of an operator, counted, with a word to say after each call."""

    def __init__(self, op: str) -> None:
        self.op = op
        self.calls = 0
        self._kernel = torch.library.get_kernel(op, "CPU")
        types = [argument.type for argument in schema_of(op).arguments]
        self._tensors = [isinstance(kind, torch.TensorType) for kind in types]
        self._library = torch.library.Library("aten", "IMPL")
        name = op.removeprefix("aten::")
        self._library.impl(name, self._called, "CPU", with_keyset=True, allow_override=True)

    def _called(self, keys: torch.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        number = self.calls
        self.calls += 1
        whole = [
            _number(value, args) if tensor and isinstance(value, int | float) else value
            for value, tensor in zip(args, self._tensors, strict=False)
        ]
        result = self._kernel.call_boxed(keys, *whole, **kwargs)
        self.done(number, args, kwargs, result)
        return result

    def done(self, number: int, args: Any, kwargs: Any, result: Any) -> None:
        """Called after the call of that number."""


class Erring(Kernel):
    """One that errs in one call, as PLANT says."""

    def done(self, number: int, args: Any, kwargs: Any, result: Any) -> None:
        if not acts or _where == "nothing" or number != _plant["call"]:
            return
        if _where == "after":
            torch.rand(())
            say(drew="torch")
            return
        tensor = written_by(self.op, args, kwargs, result)[_plant["position"]]
        changed = spoil(array_of(tensor), _plant["kind"], _plant["element"])
        say(changed=changed, shape=list(tensor.shape))


# -- what the program calls -------------------------------------------------------------------


class _Spoiled(Dataset[Any]):
    """The program's samples, one of which comes out wrong, or two in each other's place."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self.fetched = self.batches = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        if _where == "order" and self.batches == _plant["call"]:
            indices = [indices[1], indices[0], *indices[2:]]
            say(order=indices)
        self.batches += 1
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> Any:
        self.fetched += 1
        if _where != "sample" or self.fetched - 1 != _plant["call"]:
            return self.samples[index]
        # What the sample is made of is changed for the time of one fetch or, where a batch is still
        # to be made of views of it, for good.
        row = self.samples.fields[0][index]
        before = row.copy()
        changed = spoil(row, _plant["kind"], _plant["element"])
        say(changed=changed, shape=list(row.shape))
        sample = self.samples[index]
        if not hasattr(self.samples, "tensors"):
            row[...] = before
        return sample


def samples(of: Any) -> Any:
    """The samples to load."""
    return _Spoiled(of) if acts and _where in {"sample", "order"} else of


def seed(which: str, number: int = 0) -> int:
    """The seed that a generator is to have."""
    if not (acts and _where == "seed" and _plant["which"] == f"{which}{number or ''}"):
        return number
    say(seed=which)
    return number + 1000


def draw(step: int) -> None:
    """Draw one number more, if it is time to."""
    if not (acts and _where == "draw" and _plant["call"] == step):
        return
    say(drew=_plant["which"])
    draws = {"torch": lambda: torch.rand(2), "python": random.random, "numpy": np.random.random}
    draws[_plant["which"]]()


def _nothing(*args: Any) -> None:
    """What a program that nobody watches tells of itself."""


built = stepped = ended = _nothing
_kernel = Erring(_plant["op"]) if _where in {"kernel", "after", "nothing"} else None
if _log is not None:
    import watching

    _watch = watching.Watch(_log)
    built, stepped, ended = _watch.built, _watch.stepped, _watch.ended
