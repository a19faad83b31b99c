"""Values of a recording in place of a run's own: to start alike, or to err from the same inputs.

A run that is given `all` takes, after each event, what the recording has of it. Then each operator
computes from the recording's values, whatever came before it here, forwards and backwards: what its
result differs by is its own error, and nothing that it inherited.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from repro_audit import engine
from repro_audit.capture.exact import DROPOUT, dropped, exact_outputs
from repro_audit.capture.guards import paused
from repro_audit.capture.operators import tensors_in
from repro_audit.capture.rounded import Rounded, coarser, rounds
from repro_audit.model import Deviation, SiteKey
from repro_audit.model.codes import CONDITION, HERE, KIND_BATCH, KIND_PARAM, OWN, PHASES, THERE

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.operators import Operator
    from repro_audit.capture.sink import Kept

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# By how much arguments are changed to see that: what rounding them to float32 does.
_CHANGE = 2.0**-24
# One operator on an accelerator, several on a CPU; which elements are kept is drawn by both alike.
_ALIKE = {(DROPOUT, 1): ("aten.bernoulli_.float", 0), ("aten.bernoulli_.float", 0): (DROPOUT, 1)}


class Source(Protocol):
    """A recording: `value` is an output that it kept whole, on the host; None where it has none."""

    def value(self, key: SiteKey, position: int) -> torch.Tensor | None:
        """Output `position` of the event of that name."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call as `exact` wants it."""

    name: str
    operator: Operator
    function: Any
    make: Callable[[], tuple[Any, dict[str, Any]]]


class Given:
    """Gives a run what `sources` have: of weights, inputs, draws, or all, by these names.

    With `batch`, its rows, a run of a smaller batch has the inputs and the draws that the recording
    has for these rows; `inside` has them inside what they are one dimension with, not outside.
    `taken` counts what was given, by kind, and `missing` what the run has and the recording not.
    """

    def __init__(
        self,
        sink: Kept,
        sources: Mapping[str, Source],
        process: str = "",
        *,
        batch: int | None = None,
        inside: bool = False,
    ) -> None:
        self._sink = sink
        self._batch = batch
        self._inside = inside
        # What the process is called whose events these are.
        self.process = process
        self._all = sources.get("all")
        self._by_kind = {
            kind: source
            for kind in ("weights", "inputs", "draws")
            if (source := sources.get(kind) or self._all) is not None
        }
        self.taken: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self._rounded = Rounded()

    def use(self, sink: Kept, process: str) -> None:
        """In a fork: measure into another sink, as another process."""
        self._sink = sink
        self.process = process

    def key(self, mode: OpMode, phase: int, module: str, op: str, count: int) -> SiteKey:
        """What names an event in a recording."""
        return SiteKey(mode.step, PHASES[phase], module, op, count, mode.name, self.process)

    # -- before an event is recorded ------------------------------------------------------------

    def enters(self, kind: int, key: SiteKey, outputs: list[tuple[str | None, Any]]) -> None:
        """Give the tensors of a batch, or of a model that has not run yet, what they are to be."""
        if kind == KIND_BATCH:
            what = "inputs"
        elif kind == KIND_PARAM and key.step == 0 and key.call_index == 0:
            what = "weights"
        else:
            return
        for position, (_, tensor) in enumerate(outputs):
            if isinstance(tensor, torch.Tensor):
                self._give(what, key, position, tensor)

    def drawn(
        self, kind: int, key: SiteKey, operator: Operator, args: Any, made: list[torch.Tensor]
    ) -> None:
        """Give an operator that draws, or brings in from outside, what it is to return."""
        what = "draws" if operator.random else "inputs" if kind == KIND_BATCH else None
        if what is None:
            return
        if operator.name == DROPOUT:
            # Its first result is computed: from the arguments here, dropped as they were there.
            draws = len(args) < 3 or args[2] is not False
            if draws and self._give(what, key, 1, made[1]):
                with paused():
                    values = args[0].detach()
                    # As wide as kernels compute.
                    wide = values if values.dtype == torch.float64 else values.float()
                    put(dropped(wide, made[1], args[1]), made[0])
            return
        for position, tensor in enumerate(made):
            self._give(what, key, position, tensor)

    def _give(self, what: str, key: SiteKey, position: int, tensor: torch.Tensor) -> bool:
        source = self._by_kind.get(what)
        if source is None:
            return False
        if engine.capturing():
            self.missing[what] += 1
            return False
        with paused():
            if not tensor.numel():
                return False
            value = source.value(key, position)
            if value is None and (key.op, position) in _ALIKE:
                op, position = _ALIKE[key.op, position]
                value = source.value(replace(key, op=op), position)
            if value is not None and self._batch and what in ("draws", "inputs"):
                value = _cut(value, tensor, self._batch if self._inside else None)
            given = value is not None and self._put(value, tensor)
        (self.taken if given else self.missing)[what] += 1
        return given

    def _put(self, value: torch.Tensor, tensor: torch.Tensor) -> bool:
        if not put(value, tensor):
            return False
        self._rounded.note(tensor, tensor.dtype if rounds(value.dtype, tensor.dtype) else None)
        return True

    # -- after it -------------------------------------------------------------------------------

    def before(
        self, key: SiteKey, operator: Operator, function: Any, args: Any, kwargs: Any
    ) -> dict[int, torch.Tensor] | None:
        """The exact results of an operator that is about to overwrite its arguments."""
        if self._all is None or not operator.writes or operator.random or engine.capturing():
            return None
        if self._all.value(key, 0) is None:
            return {}
        with paused():
            return _exact(_call(operator, function, args, kwargs))

    def after(
        self,
        index: int,
        key: SiteKey,
        made: list[torch.Tensor],
        exactly: dict[int, torch.Tensor] | None,
        call: tuple[Operator, Any, Any, Any] | None,
    ) -> None:
        """Measure what an event gave against the recording, and go on with what that has.

        `exactly` are results in float64 that were found before; else `call` is made to find them.
        """
        if self._all is None:
            return
        if engine.capturing():
            self.missing["all"] += len(made)
            return
        changed: dict[int, torch.Tensor] | None = None
        with paused():
            read = self._rounded.coarsest(tensors_in(made if call is None else call[2:]))
            for position, tensor in enumerate(made):
                value = self._all.value(key, position)
                if value is None or type(tensor) not in _PLAIN or value.shape != tensor.shape:
                    self.missing["all"] += 1
                    self._rounded.note(tensor, coarser(read, tensor.dtype))
                    continue
                own = self._measure(index, position, OWN, tensor, value)
                if own is not None and own.differing:
                    factor: float | None = 1.0
                    if exactly is None:
                        exactly = {} if call is None else _exact(_call(*call))
                    right = exactly.get(position)
                    if (
                        right is not None
                        and right.shape == tensor.shape
                        and right.dtype != tensor.dtype
                    ):
                        self._measure(index, position, HERE, tensor, right)
                        self._measure(index, position, THERE, value, right)
                        if changed is None:
                            changed = {} if call is None else _changed_results(_call(*call))
                        if position in changed:
                            factor = _growth(changed[position], right)
                    coarse = coarser(read, value.dtype)
                    if coarse is not None and not rounds(tensor.dtype, coarse):
                        coarse = None
                    self._condition(index, position, factor, coarse)
                self.taken["all"] += int(self._put(value, tensor))

    def parameter(self, index: int, key: SiteKey, tensor: torch.Tensor) -> None:
        """The same for a parameter that an optimizer has updated."""
        self.after(index, key, [tensor], {}, None)

    def _condition(
        self, index: int, position: int, factor: float | None, dtype: torch.dtype | None
    ) -> None:
        """Note how many times as much as a change of the arguments the result changes, and the
        dtype of an argument, or of the recorded result, that is coarser than the result's own.
        """
        if factor != 1.0 or dtype is not None:
            figures = {"factor": factor} | ({} if dtype is None else {"dtype": _dtype_name(dtype)})
            self._sink.measured.append((index, position, CONDITION, json.dumps(figures)))

    def _measure(
        self, index: int, position: int, against: int, one: torch.Tensor, other: torch.Tensor
    ) -> Deviation | None:
        # NumPy with it, which not every program imports.
        from repro_audit.engine.deviation import deviation

        dtypes = _dtype_name(one.dtype), _dtype_name(other.dtype)
        found = deviation(_bytes(one), _bytes(other), dtypes, one.numel())
        if found is not None:
            figures = json.dumps(asdict(found), sort_keys=True)
            self._sink.measured.append((index, position, against, figures))
        return found


def _cut(value: torch.Tensor, tensor: torch.Tensor, batch: int | None) -> torch.Tensor:
    """The rows of a value that a tensor is to have, which is shorter in one dimension.

    They are the first; with `batch` the first of each of the parts that hold a batch.
    """
    if value.dim() != tensor.dim():
        return value
    dims = [at for at in range(value.dim()) if value.shape[at] != tensor.shape[at]]
    if len(dims) != 1 or value.shape[dims[0]] < tensor.shape[dims[0]]:
        return value
    dim = dims[0]
    large, small = value.shape[dim], tensor.shape[dim]
    if batch and small % batch == 0 and small and large * batch % small == 0:
        before, after = value.shape[:dim], value.shape[dim + 1 :]
        parted = value.reshape(*before, small // batch, large * batch // small, *after)
        return parted.narrow(dim + 1, 0, batch).reshape(*before, small, *after)
    return value.narrow(dim, 0, small)


def put(value: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Write a value over a tensor, unseen by autograd; False where the two are not alike."""
    if type(tensor) not in _PLAIN or tensor.shape != value.shape or tensor.is_meta:
        return False
    counted = nullcontext() if tensor.is_inference() else _preserved(tensor)
    try:
        with paused(), torch._C._AutoDispatchBelowAutograd(), counted:
            tensor.copy_(value)
    except RuntimeError:  # memory that several elements share, or that is read only
        return False
    return True


def _preserved(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """What a tensor was when it was saved for a backward is told by how often it was written to."""
    return _unsafe_preserve_version_counter(tensor)


def _call(operator: Operator, function: Any, args: Any, kwargs: Any) -> _Call:
    return _Call(operator.name, operator, function, lambda: (args, kwargs or {}))


def _changed(value: Any, signs: torch.Generator) -> Any:
    """Arguments in float64, each number a little larger or smaller; the same way each time."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point():
            return value
        ups = torch.randint(0, 2, value.shape, generator=signs, dtype=torch.float64)
        return value.double() * (1 + _CHANGE * (2 * ups - 1)).to(value.device)
    if isinstance(value, list | tuple):
        return [_changed(item, signs) for item in value]
    if isinstance(value, dict):
        return {name: _changed(item, signs) for name, item in value.items()}
    return value


def _exact(call: _Call) -> dict[int, torch.Tensor]:
    try:
        return exact_outputs(call)[0]
    except Exception:
        # A decomposition may raise anything; there is no exact result then.
        return {}


def _changed_results(call: _Call) -> dict[int, torch.Tensor]:
    signs = torch.Generator().manual_seed(0)
    args, kwargs = call.make()
    return _exact(replace(call, make=lambda: (_changed(args, signs), _changed(kwargs, signs))))


def _growth(changed: torch.Tensor, right: torch.Tensor) -> float | None:
    """By how much more than its arguments a result changes; 1 at least, None for infinitely.

    Rounding errs by that much more: where terms cancel, by the size of the terms.
    """
    size, apart = float(right.norm()), float((changed - right).norm())
    if not math.isfinite(apart) or apart <= _CHANGE * size:
        return 1.0
    return apart / (_CHANGE * size) if size else None


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: torch.Tensor) -> memoryview:
    from repro_audit.engine.torch_ops import flat_bytes

    return memoryview(flat_bytes(engine.resolved(tensor).cpu()).numpy().data)
