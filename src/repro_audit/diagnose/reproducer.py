"""A program of a few lines that shows a divergence to anyone who has torch, and nothing of ours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro_audit.model import Json, Target

_WIDTH = 92
_DETERMINISTIC = "torch.use_deterministic_algorithms(True, warn_only=True)\n"
# Bytes that these take; all other dtypes say it in their name.
_SIZES = {"bool": 1, "complex32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a run of the program is made: `fill` is the byte that `empty*` memory is filled with."""

    hash_seed: int | None
    seed: int | None
    fill: int = 0
    reversed_listings: bool = False
    deterministic: bool = False


def script_of_call(call: dict[str, Json], *, about: Sequence[str], times: int) -> str:
    """A script that makes a kept call `times` times and counts its results; exits 1 if they differ.

    Reads `inputs.safetensors` beside it, whose tensors `memory_0`, ... are the memory that the
    arguments lie in and `generator_0`, ... states, all as bytes. `about` is what its first lines
    say, paragraph by paragraph. Raises ValueError for a call that was not kept whole.
    """
    lines = []
    for number, generator in enumerate(call["generators"]):
        state = f'stored("generator_{number}")'
        if generator["own"]:
            lines.append(f"g{number} = torch.Generator({generator['device']!r})")
            lines.append(f"g{number}.set_state({state})")
        elif generator["device"] == "cpu":
            lines.append(f"torch.default_generator.set_state({state})")
        else:
            device = generator["device"]
            kind = device.partition(":")[0]
            lines.append(f"torch.{kind}.set_rng_state({state}, {device!r})")
    devices = {t["memory"]: t["device"] for t in call["tensors"]}
    for number, memory in enumerate(call["memory"]):
        device = "" if devices[number] == "cpu" else f", {devices[number]!r}"
        lines.append(f'm{number} = memory("memory_{number}", {memory["address"]}{device})')
    lines += [f"x{number} = {_tensor(tensor)}" for number, tensor in enumerate(call["tensors"])]
    arguments = [_code(value) for value in call["arguments"]]
    arguments += [f"{name}={_code(value)}" for name, value in call["keywords"].items()]
    function = f"torch.ops.{call['op']}"
    written = [f"x{n}" for n in range(len(call["tensors"]))]
    lines.append(f"result = {function}({', '.join(arguments)})")
    if scratch := tuple(call.get("scratch", ())):
        lines.append("# The others are scratch, of which not all is written.")
        lines.append(f"result = [r for at, r in enumerate(result) if at not in {scratch}]")
    lines.append(f"return [result, {', '.join(written)}]" if written else "return [result]")
    return _CALL_SCRIPT.format(
        about=_about(about),
        threads=call["threads"],
        deterministic=_DETERMINISTIC if call["deterministic"] else "",
        settings="".join(f"{line}\n" for line in _settings(call)),
        times=times,
        body=textwrap.indent("\n".join(lines), "    "),
    )


def script_of_program(
    target: Target, path: str, one: Condition, other: Condition, *, about: Sequence[str]
) -> str:
    """A script that runs a program twice, and compares what ops give; exits 1 at a difference.

    `path` is the program's, from the directory of the script. Raises ValueError for a target that
    is no program of its own.
    """
    if target.kind == "script":
        place = "os.path.dirname(PROGRAM)"
        run = 'runpy.run_path(PROGRAM, run_name="__main__")'
    elif target.kind == "module":
        place = "os.getcwd()"
        run = f'runpy.run_module({target.name!r}, run_name="__main__", alter_sys=True)'
    else:
        raise ValueError("a model file is no program of its own")
    return _PROGRAM_SCRIPT.format(
        about=_about(about),
        path=path,
        place=place,
        words=[*target.args],
        run=run,
        conditions=_conditions(one, other),
    )


def _conditions(one: Condition, other: Condition) -> str:
    return "\n".join(
        f"    dict(hash_seed={c.hash_seed!r}, seed={c.seed!r}, fill={c.fill!r}, "
        f"reverse={c.reversed_listings!r}, deterministic={c.deterministic!r}),"
        for c in (one, other)
    )


def _settings(call: dict[str, Json]) -> list[str]:
    """What sets torch as it was for a call, where that is not as it begins."""
    lines = [f"torch.{name} = {value!r}" for name, value in call["settings"].items()]
    if call["dtype"] != "float32":
        lines.append(f"torch.set_default_dtype(torch.{call['dtype']})")
    return lines


def _about(paragraphs: Sequence[str]) -> str:
    wrapped = (textwrap.fill(paragraph, _WIDTH) for paragraph in paragraphs)
    return "\n\n".join(wrapped).replace("\\", "\\\\").replace('"""', '\\"""')


def _tensor(tensor: dict[str, Json]) -> str:
    dtype, shape, strides = tensor["dtype"], tuple(tensor["shape"]), tuple(tensor["strides"])
    if 0 in shape:
        return f"torch.empty({shape}, dtype=torch.{dtype}, device={tensor['device']!r})"
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    begin = tensor["begin"]
    made = f"m{tensor['memory']}[{begin}:{begin + reach * _size(dtype)}].view(torch.{dtype})"
    made += f".as_strided({shape}, {strides})"
    if tensor["conjugate"]:
        made = f"torch._conj({made})"
    return f"torch._neg_view({made})" if tensor["negative"] else made


def _size(dtype: str) -> int:
    if dtype in _SIZES:
        return _SIZES[dtype]
    digits = "".join(c for c in dtype.partition("_")[0] if c.isdigit())
    return int(digits) // 8


def _code(value: Json) -> str:
    """A kept argument as the expression that makes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_code, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    ((kind, what),) = value.items()
    match kind:
        case "tensor":
            return f"x{what}"
        case "generator":
            return f"g{what}"
        case "float":
            return _float(what)
        case "complex":
            return f"complex({_float(what[0])}, {_float(what[1])})"
        case "device":
            return f"torch.device({what!r})"
        case "dtype" | "layout" | "memory_format":
            return f"torch.{what}"
    raise ValueError(f"an argument of type {what} is not kept")


def _float(text: str) -> str:
    value: Any = float.fromhex(text)
    return repr(value) if value - value == 0 else f'float("{value}")'


_CALL_SCRIPT = '''"""{about}
"""

import json
import sys
from pathlib import Path

import torch

data = bytearray((Path(__file__).parent / "inputs.safetensors").read_bytes())
first = 8 + int.from_bytes(data[:8], "little")
header = json.loads(data[8:first])


def stored(name):
    begin, end = header[name]["data_offsets"]
    held = torch.frombuffer(data, dtype=torch.uint8, offset=first + begin, count=end - begin)
    return held.clone()


def memory(name, address, device="cpu"):
    """The bytes, at the address modulo 64 that they had."""
    held = stored(name) if header[name]["shape"] != [0] else torch.empty(0, dtype=torch.uint8)
    room = torch.empty(len(held) + 64, dtype=torch.uint8, device=device)
    begin = (address - room.data_ptr()) % 64
    room[begin : begin + len(held)] = held
    return room[begin : begin + len(held)]


def call():
{body}


def flat(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value.detach().resolve_conj().resolve_neg().contiguous().clone()
        elif isinstance(value, (list, tuple)):
            yield from flat(value)


def same(one, other):
    return all(
        torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
        for a, b in zip(one, other)
    )


torch.set_num_threads({threads})
{deterministic}{settings}distinct = []
for _ in range({times}):
    with torch.no_grad():
        outcome = list(flat(call()))
    if not any(same(outcome, known) for known in distinct):
        distinct.append(outcome)
print(f"torch {{torch.__version__}}, {{torch.get_num_threads()}} threads")
print(f"{{len(distinct)}} distinct results in {times} calls on the same inputs")
for a, b in zip(distinct[0], distinct[-1]):
    if a.is_floating_point() and not same([a], [b]):
        apart = (a.double() - b.double()).abs()
        most, largest = float(apart.max()), float(a.abs().max())
        print(f"two of them differ in {{int((apart > 0).sum())}} of {{a.numel()}} elements")
        print(f"by {{most:.3g}} at most, where the largest is {{largest:.3g}}")
sys.exit(len(distinct) > 1)
'''

_PROGRAM_SCRIPT = '''"""{about}
"""

import os
import random
import runpy
import subprocess
import sys
import tempfile

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), {path!r})
RUNS = [
{conditions}
]
PAIRS = 10  # at most: the difference may be left to chance


def child(log, hash_seed, seed, fill, reverse, deterministic):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    def digest(tensor):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).long()
        return int((data * torch.arange(1, len(data) + 1)).sum())

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from tensors(item)

    class Probe(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {{}}))
            if "empty" in func.__name__:
                for tensor in tensors(result):
                    if tensor.numel():
                        tensor.untyped_storage().fill_(fill)
            elif not func.is_view or "lift" in func.__name__:
                found = [digest(t) for t in tensors(result) if t.layout is torch.strided]
                print(func, *found, file=log)
            return result

    if seed is not None:
        random.seed(seed)
        torch.manual_seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
    if reverse:
        listdir = os.listdir
        os.listdir = lambda *path: sorted(listdir(*path), reverse=True)
    if deterministic:
        torch.use_deterministic_algorithms(True)
    sys.path.insert(0, {place})
    sys.argv = [PROGRAM, *{words!r}]
    with Probe():
        {run}


def observed(number, condition, place):
    environment = dict(os.environ)
    environment.pop("PYTHONHASHSEED", None)
    if condition["hash_seed"] is not None:
        environment["PYTHONHASHSEED"] = str(condition["hash_seed"])
    path = os.path.join(place, str(number))
    subprocess.run([sys.executable, __file__, str(number), path], env=environment)
    with open(path) as log:
        return log.read().splitlines()


if len(sys.argv) == 3:
    with open(sys.argv[2], "w") as log:
        child(log, **RUNS[int(sys.argv[1])])
    sys.exit()
for pair in range(1, PAIRS + 1):
    with tempfile.TemporaryDirectory() as place:
        one, other = (observed(n, condition, place) for n, condition in enumerate(RUNS))
    apart = [n for n, (a, b) in enumerate(zip(one, other)) if a != b]
    if apart or len(one) != len(other):
        at = apart[0] if apart else min(len(one), len(other))
        print(f"pair {{pair}}: the runs part at op {{at}} of {{max(len(one), len(other))}}:")
        for log in (one, other):
            print("  " + (log[at] if at < len(log) else "(the program has ended)"))
        sys.exit(1)
print(f"{{PAIRS}} pairs of runs agree in every op")
'''
