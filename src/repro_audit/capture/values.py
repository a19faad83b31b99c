"""What events' tensors hold, kept for a recording: a few elements of each, or all within a budget.

Which elements is the same for every tensor of one shape (SPEC.md, section 11), so that recordings
of machines that never meet compare element by element.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture import parts
from repro_audit.capture.guards import paused
from repro_audit.capture.operators import tensors_in
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model.codes import BACKWARD, DATA, FORWARD, OPTIMIZER, WEIGHTS

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator
    from repro_audit.capture.readings import Readings
    from repro_audit.capture.sink import Kept

# The causal order within a step: what is first is the more telling.
_ORDER = {DATA: 0, FORWARD: 1, BACKWARD: 2, OPTIMIZER: 3, WEIGHTS: 4}


class Values:
    """Keeps of what is recorded `samples` elements each, and the whole within `budget` bytes.

    What a run starts from (initial weights, batches, random numbers) goes first, then what comes
    first: where the budget is used up, what is less telling makes room; with `starting_only` the
    rest is not kept whole at all. On another device than the host elements are gathered there, and
    fetched together by `settle`.
    """

    def __init__(
        self,
        sink: Kept,
        readings: Readings,
        *,
        samples: int,
        budget: int,
        starting_only: bool = False,
    ) -> None:
        self._samples = samples
        self._starting_only = starting_only
        self._room = self._budget = budget
        # Of what is kept whole: how telling, negated, so that the least is on top; its bytes.
        self._whole: list[tuple[tuple[int, ...], int]] = []
        self.use(sink, readings)

    def use(self, sink: Kept, readings: Readings) -> None:
        """Keep what comes in another sink."""
        self._sink = sink
        self._readings = readings
        self._reductions: set[tuple[int, int]] = set()
        self._gathered: list[tuple[int, int, torch.Tensor]] = []
        # Those that it comes from.
        self._streams: set[Any] = set()

    def take(
        self,
        index: int,
        position: int,
        tensor: torch.Tensor,
        *,
        step: int,
        phase: int,
        starting: bool,
    ) -> None:
        """Keep output `position` of event `index`; `starting` if the run starts from it."""
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.numel() == 0:
            return
        with paused():
            if engine.captive():
                # What is gathered would stay in the graph's memory, or become part of it.
                return
            if parts.of(tensor) is not None:
                # Made of others: a functorch wrapper has a shape, and no memory at all.
                return
            try:
                self._sample(index, position, tensor)
            except UnsupportedTensorError:
                # No plain memory: its digest is all that there is of it.
                return
            if self._budget and (starting or not self._starting_only):
                rank = (0 if starting else 1, step, _ORDER.get(phase, 0), index, position)
                self._keep(rank, index, position, tensor)

    def made(
        self,
        index: int,
        step: int,
        phase: int,
        site: int,
        operator: Operator,
        args: Any,
        made: list[torch.Tensor],
    ) -> None:
        """Keep what an operator wrote, and note how many numbers go into it."""
        starting = operator.random or operator.outside
        for position, tensor in enumerate(made):
            self.take(index, position, tensor, step=step, phase=phase, starting=starting)
        spec = self._readings.spec_of(made[0]) if made else None
        # Once for each shape.
        if spec is not None and (site, spec) not in self._reductions:
            self._reductions.add((site, spec))
            if all(map(_has_sizes, (*tensors_in(args), *made))):
                length = reduction_length(operator.name, args, made)
                self._sink.reductions.append((site, spec, length))

    def settle(self) -> None:
        """Fetch what was gathered on devices. Waits for them; not in a graph's capture."""
        if engine.capturing():
            return
        gathered, self._gathered = self._gathered, []
        streams, self._streams = self._streams, set()
        with paused(), engine.aside():
            engine.follow(streams)
            for index, position, elements in gathered:
                data = elements.cpu().numpy().tobytes()
                self._sink.samples.append((index, position, data))

    def _sample(self, index: int, position: int, tensor: torch.Tensor) -> None:
        if engine.stays(tensor):
            self._gathered.append((index, position, engine.gathered(tensor, self._samples)))
            if (stream := engine.stream_of(tensor)) is not None:
                self._streams.add(stream)
            return
        data = engine.sample(tensor, self._samples)
        self._sink.samples.append((index, position, data))

    def _keep(self, rank: tuple[int, ...], index: int, position: int, tensor: torch.Tensor) -> None:
        nbytes = tensor.numel() * tensor.element_size()
        negated = tuple(-part for part in rank)
        if nbytes > self._budget:
            return
        while nbytes > self._room:
            least, freed = self._whole[0]
            if least >= negated:
                return
            heapq.heappop(self._whole)
            self._sink.unkeep(-least[-2], -least[-1])
            self._room += freed
        self._readings.keep(index, position, tensor)
        self._room -= nbytes
        heapq.heappush(self._whole, (negated, nbytes))


def _has_sizes(tensor: torch.Tensor) -> bool:
    """False of rows of several lengths, and of sizes that stand for any: to ask would fix them."""
    with contextlib.suppress(RuntimeError):
        return all(type(n) is int for n in tensor.shape)
    return False


# Operators of which it is known what they add up: of each result one number for each element of
# these dimensions of the argument (its position, the dimensions).
_CONTRACTED = {
    "mm": (0, -1),
    "addmm": (1, -1),
    "bmm": (0, -1),
    "baddbmm": (1, -1),
    "addbmm": (1, -1),
    "mv": (0, -1),
    "addmv": (1, -1),
    "dot": (0, -1),
    "vdot": (0, -1),
    "linear": (0, -1),
    "_int_mm": (0, -1),
    "_scaled_mm": (0, -1),
}
_SOFTMAX = {"_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax"}


def reduction_length(name: str, args: Any, result: Any) -> int:
    """How many numbers go into one element of an operator's result, at most; 1 for one by one.

    Of matrix products the inner dimension; of convolutions what a filter covers, backwards also
    what a weight's gradient adds up; of norms and softmaxes what they normalise over; of attention
    keys and the width of a head. Else how often the smallest result goes into the largest argument.
    """
    base = name.split(".")[1] if name.count(".") > 1 else name
    given = [tensor for tensor in tensors_in(args) if tensor.numel()]
    made = [tensor for tensor in tensors_in(result) if tensor.numel()]
    if base in _CONTRACTED:
        at, dim = _CONTRACTED[base]
        return int(args[at].shape[dim])
    if base in {"convolution", "mkldnn_convolution", "cudnn_convolution", "_convolution"}:
        weight = args[1]
        return int(weight.numel() // max(1, weight.shape[0]))
    if base.endswith("convolution_backward"):
        gradient, _, weight = args[0], args[1], args[2]
        into_weight = gradient.numel() // max(1, gradient.shape[1])
        into_input = weight.numel() // max(1, weight.shape[1])
        return int(max(into_weight, into_input))
    if base in {"native_layer_norm", "_fused_rms_norm", "rms_norm"}:
        return int(math.prod(args[1]))
    if base == "native_group_norm":
        return int(args[0].numel() // max(1, args[3] * args[6]))
    if "batch_norm" in base:
        return int(args[0].numel() // max(1, args[0].shape[1]))
    if base.startswith("nll_loss"):
        return int(args[1].numel() if "forward" in base else 1)
    if base in _SOFTMAX:
        return int(args[0].shape[args[1]]) if args[0].dim() else 1
    if "scaled_dot_product" in base or base.endswith(("flash_attention", "flex_attention")):
        query, key = given[0], given[1] if len(given) > 1 else given[0]
        return int(max(query.shape[-1], key.shape[-2]))
    if base in {"cumsum", "cumprod", "logcumsumexp"}:
        return int(args[0].shape[args[1]]) if args[0].dim() else 1
    if not given or not made:
        return 1
    largest = max(tensor.numel() for tensor in given)
    smallest = min(tensor.numel() for tensor in made)
    return max(1, math.ceil(largest / smallest))
