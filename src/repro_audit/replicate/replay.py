"""A kept call made again and again in a process of its own: does it vary alone, and is it right?

`python -m repro_audit.replicate.replay TIMES SECONDS PLAN.json` reads the trace that the plan
names, and writes what it found of the event that the plan captures, as JSON. The process has the
environment and the settings of the run.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory, put there by `-m`: no file in it may stand in for a module of ours.
    del sys.path[0]

import hashlib
import json
import operator
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro_audit import engine
from repro_audit.capture.calls import complete, rebuilt
from repro_audit.capture.choices import choose
from repro_audit.capture.exact import exact
from repro_audit.capture.operators import Operator
from repro_audit.control import pins
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import Json
from repro_audit.replicate.launch import replay_result as result_of
from repro_audit.replicate.plan import plan_from_json
from repro_audit.trace import Trace
from repro_audit.trace.schema import MEMORY, STATE

# Results that are kept to be compared, and the bytes that they may take together.
_KEPT, _ROOM = 8, 1 << 30


@dataclass(frozen=True, slots=True)
class Kept:
    """A call of a run, ready to be made again."""

    name: str
    operator: Operator
    function: Any
    make: Any
    recorded: str

    def call(self) -> tuple[list[Any], dict[str, Any], Any]:
        """Make it: arguments, arguments by name, result."""
        args, kwargs = self.make()
        with torch.no_grad():
            return args, kwargs, self.function(*args, **kwargs)

    def outputs(self) -> list[torch.Tensor]:
        """What it writes and returns, when it is made once more."""
        return [made[0] for made in self.operator.outputs(*self.call())]


class NoReplayError(Exception):
    """Why a call cannot be made again."""


def load(trace: Trace, i: int | None) -> Kept:
    """The call of event `i`, with the settings that it was made under. Raises NoReplayError."""
    call = None if i is None else trace.call(i)
    if i is None or call is None:
        raise NoReplayError("its call was not kept")
    if not complete(call):
        raise NoReplayError("it was given objects that cannot be kept")
    function = _function(call["op"])
    torch.set_num_threads(call["threads"])
    # It imports inductor, which takes longer than torch.
    if call["deterministic"] or torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(call["deterministic"], warn_only=True)
    torch._C._set_deterministic_fill_uninitialized_memory(call["fill"])
    torch.set_default_dtype(getattr(torch, call["dtype"]))
    choose(call["settings"])
    memory = list(_kept(trace, i, MEMORY, len(call["memory"])))
    states = list(_kept(trace, i, STATE, len(call["generators"])))
    recorded = [(output.spec.dtype, output.spec.shape) for output in trace.event(i).outputs]
    digests = [output.digest for output in trace.event(i).outputs]
    return Kept(
        name=call["op"],
        operator=Operator(function),
        function=function,
        make=rebuilt(call, memory, states),
        recorded=_named(recorded, digests),
    )


def replay(kept: Kept, *, times: int, seconds: float) -> dict[str, Json]:
    """Make a call `times` times, or for `seconds`: its results by frequency, and how they differ.

    `counts` has how often each distinct result came, the most frequent first. `recorded` is the
    place among them of what the run got, None where it never came. `differing_pairs` of `pairs`
    calls one after the other, none in two pairs, differ. `between` compares the two most frequent
    results, `exact` each kept one with the result in float64, at the output that `output` numbers;
    `inexact` says why there is no such.
    """
    counts: Counter[str] = Counter()
    names: list[str] = []
    results: dict[str, list[torch.Tensor]] = {}
    room = _ROOM
    until = time.monotonic() + seconds
    for made in range(times):
        if made and time.monotonic() >= until:
            break
        outputs = kept.outputs()
        name = _name_of(outputs)
        counts[name] += 1
        names.append(name)
        size = sum(tensor.nbytes for tensor in outputs)
        if name not in results and len(results) < _KEPT and size <= room:
            results[name] = [tensor.cpu() for tensor in outputs]
            room -= size
    # Of results that came as often the one that came first: a counter keeps that order.
    order = sorted(counts, key=lambda name: -counts[name])
    found: dict[str, Json] = {
        "calls": len(names),
        "pairs": len(names) // 2,
        "differing_pairs": sum(map(operator.ne, names[::2], names[1::2])),
        "counts": [counts[name] for name in order],
        "recorded": order.index(kept.recorded) if kept.recorded in counts else None,
    }
    both = [results[name] for name in order if name in results]
    return {**found, **_figures(kept, both)}


def _figures(kept: Kept, results: list[list[torch.Tensor]]) -> dict[str, Json]:
    """How the results differ from each other and from the exact one, at the first output that does.

    Where none does, at the first of a floating-point dtype.
    """
    output = _output_of(results)
    if output is None:
        return {"output": None, "between": None, "exact": [], "inexact": "it gives no such number"}
    found: dict[str, Json] = {"output": output, "between": None, "exact": [], "inexact": None}
    if len(results) > 1:
        found["between"] = _divergence(results[0][output], results[1][output])
    reference, reason = exact(kept, output, results[0])
    if reference is None:
        return {**found, "inexact": reason}
    rounded = reference.to(results[0][output].dtype).cpu()
    return {**found, "exact": [_divergence(result[output], rounded) for result in results]}


def _output_of(results: list[list[torch.Tensor]]) -> int | None:
    for at, tensor in enumerate(results[0]):
        if any(_name_of([tensor]) != _name_of([other[at]]) for other in results[1:]):
            return at
    floating = (at for at, t in enumerate(results[0]) if t.dtype.is_floating_point and t.numel())
    return next(floating, None)


def _divergence(one: torch.Tensor, other: torch.Tensor) -> dict[str, Json] | None:
    try:
        found = engine.compare(one, other)
    except (UnsupportedTensorError, ValueError):
        return None
    return {name: getattr(found, name) for name in found.__slots__}


def _function(op: str) -> Any:
    namespace, base, overload = op.split(".") if op.count(".") == 2 else ("", "", "")
    packet = getattr(getattr(torch.ops, namespace, None), base, None) if namespace else None
    function = getattr(packet, overload, None)
    if function is None:
        raise NoReplayError(f"{op} is no operator of torch's own")
    return function


def _kept(trace: Trace, i: int, role: int, count: int) -> Iterator[bytes]:
    for position in range(count):
        found = trace.payload(i, role, position)
        if found is None:
            raise NoReplayError("its arguments take more than 2 GiB")
        yield found


def _name_of(outputs: list[torch.Tensor]) -> str:
    """What is equal for equal results."""
    specs = [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in outputs]
    return _named(specs, [engine.tensor_digest(tensor) for tensor in outputs])


def _named(specs: list[tuple[str, tuple[int, ...]]], digests: list[bytes | None]) -> str:
    return hashlib.blake2b(repr((specs, digests)).encode(), digest_size=16).hexdigest()


def main(times: int, seconds: float, path: Path) -> None:
    """Replay what a plan captures, from the trace that it names."""
    plan = plan_from_json(json.loads(path.read_text(encoding="utf-8")))
    found: dict[str, Json]
    with closing(Trace.open(Path(plan.trace))) as trace:
        try:
            kept = load(trace, trace.find(plan.capture[0]))
            pins.hold(plan.pins, torch)
            found = replay(kept, times=times, seconds=seconds)
        except (NoReplayError, UnsupportedTensorError, RuntimeError, NotImplementedError) as error:
            found = {"problem": str(error).partition("\n")[0]}
    result_of(plan).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
