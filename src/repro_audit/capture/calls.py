"""An operator's call kept whole, to be made again: its arguments, and the memory they lie in.

Tensors come back with the sizes, strides and conjugate bit that they had, on memory that they share
as they did, which begins at the same address modulo 64: kernels go by all of these.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from repro_audit import engine
from repro_audit.capture.choices import chosen
from repro_audit.model import Json

# Kernels choose among vectorised loops by addresses modulo this.
_ALIGNMENT = 64
# Bytes of the largest element, complex128.
_LARGEST = 16
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_NAMED = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a storage that a call's tensors lie in: bytes [`begin`, `end`) of it."""

    storage: torch.UntypedStorage
    begin: int
    end: int

    @property
    def address(self) -> int:
        """Where it begins, modulo 64."""
        return (self.storage.data_ptr() + self.begin) % _ALIGNMENT

    def view(self) -> torch.Tensor:
        """Its bytes, where they are."""
        memory = torch.empty(0, dtype=torch.uint8, device=self.storage.device)
        if self.end > self.begin:
            memory.set_(self.storage, self.begin, (self.end - self.begin,), (1,))
        return memory

    def bytes(self) -> torch.Tensor:
        """Its bytes, on the host. Waits for their device."""
        return self.view().cpu()


class Call:
    """A call as it is about to be made: `json` describes it, `spans` and `states` are its memory.

    `states` are those of the generators that it draws from. What cannot be kept is described as
    `{"unknown": TYPE}`: such a call is not made again.
    """

    def __init__(
        self,
        op: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        random: bool,
        scratch: Sequence[int] = (),
    ) -> None:
        self._tensors: list[torch.Tensor] = []
        self._generators: list[engine.DeviceGenerator] = []
        arguments = [self._described(value) for value in args]
        keywords = {name: self._described(kwargs[name]) for name in sorted(kwargs)}
        draws = random or bool(self._generators)
        default = _default_generator(self._tensors, kwargs) if draws else None
        if default is not None and not self._generators:
            self._generators.append(default)
        found, of = _spans(self._tensors)
        self.spans: list[Any] = list(found)
        self.states = [generator.get_state() for generator in self._generators]
        self.json: dict[str, Json] = {
            "op": op,
            # Results that say nothing, by their positions.
            "scratch": list(scratch),
            "arguments": arguments,
            "keywords": keywords,
            "tensors": [
                _tensor(tensor, self.spans[at], at)
                for tensor, at in zip(self._tensors, of, strict=True)
            ],
            "memory": [
                {"bytes": span.end - span.begin, "address": span.address} for span in self.spans
            ],
            "generators": [
                {"device": str(generator.device), "own": generator is not default}
                for generator in self._generators
            ],
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "fill": torch._C._get_deterministic_fill_uninitialized_memory(),
            "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
            "settings": chosen(),
        }

    @property
    def nbytes(self) -> int:
        """Bytes that keeping it takes."""
        spans = sum(int(span.end - span.begin) for span in self.spans)
        return spans + sum(map(len, self.states))

    def places(self) -> dict[int, int]:
        """The number of each tensor among the call's, by its id; lets go of the tensors."""
        places = {id(tensor): at for at, tensor in enumerate(self._tensors)}
        self._tensors = []
        return places

    def _described(self, value: Any) -> Json:
        if isinstance(value, torch.Tensor):
            plain = type(value) in _PLAIN and value.layout is torch.strided
            # One of a function that is differentiated or vectorised has no memory of its own.
            plain = plain and not torch._C._functorch.is_functorch_wrapped_tensor(value)
            plain = plain and not (value.is_nested or value.is_meta or value.is_quantized)
            if not plain or value._is_zerotensor():
                return {"unknown": f"{value.layout} {type(value).__name__}"}
            if _extent(value)[1] > value.untyped_storage().nbytes():
                # Freed, as sharded models free what they gathered, or shrunk.
                return {"unknown": f"{type(value).__name__} whose memory is gone"}
            self._tensors.append(value)
            return {"tensor": len(self._tensors) - 1}
        if isinstance(value, list | tuple):
            return [self._described(item) for item in value]
        if value is None or isinstance(value, bool | str | int):
            return value
        if isinstance(value, float):
            return {"float": value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real.hex(), value.imag.hex()]}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, torch.Generator):
            self._generators.append(value)
            return {"generator": len(self._generators) - 1}
        if isinstance(value, torch.SymInt) and not value.node.is_nested_int():
            return int(value)
        for kind, name in _NAMED.items():
            if isinstance(value, kind):
                return {name: str(value).removeprefix("torch.")}
        return {"unknown": type(value).__name__}


def rebuilt(
    call: dict[str, Json], memory: Sequence[bytes], states: Sequence[bytes]
) -> Callable[[], tuple[list[Any], dict[str, Any]]]:
    """What makes a kept call's arguments, positional and by name, afresh every time it is called.

    The global generators that the call draws from are set as they were. Raises ValueError for a
    call with an argument that could not be kept.
    """

    def make() -> tuple[list[Any], dict[str, Any]]:
        places = [
            _placed(bytes_, at["address"], call["tensors"], number)
            for number, (bytes_, at) in enumerate(zip(memory, call["memory"], strict=True))
        ]
        tensors = [rebuilt_tensor(tensor, places) for tensor in call["tensors"]]
        generators = [
            _rebuilt_generator(generator, state)
            for generator, state in zip(call["generators"], states, strict=True)
        ]
        objects: dict[str, list[Any]] = {"tensor": tensors, "generator": generators}
        arguments = [_value(value, objects) for value in call["arguments"]]
        return arguments, {name: _value(value, objects) for name, value in call["keywords"].items()}

    return make


def _default_generator(
    tensors: Sequence[torch.Tensor], kwargs: dict[str, Any]
) -> engine.DeviceGenerator:
    device = torch.device(kwargs.get("device") or (tensors[0].device if tensors else "cpu"))
    return engine.generator_of(device)


def _spans(tensors: Sequence[torch.Tensor]) -> tuple[list[Span], list[int]]:
    """The memory of tensors, a span a storage; and for each tensor the span that it lies in."""
    found: dict[int, Span] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        begin, end = _extent(tensor)
        known = found.get(storage._cdata)
        if known is not None:
            begin, end = min(begin, known.begin), max(end, known.end)
        found[storage._cdata] = Span(storage, begin, end)
    order = list(found)
    return list(found.values()), [order.index(t.untyped_storage()._cdata) for t in tensors]


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First byte in its storage of a tensor's elements, and the first after them.

    The first rounded down, so that tensors of every dtype on that storage begin at a whole element.
    """
    size, first = tensor.element_size(), int(tensor.storage_offset())
    begin = first * size - first * size % _LARGEST
    if tensor.numel() == 0:
        return begin, begin
    if tensor.is_contiguous():
        return begin, first * size + tensor.numel() * size
    reach = sum(int(n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, (first + reach + 1) * size


def _tensor(tensor: torch.Tensor, span: Span, at: int) -> dict[str, Json]:
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "memory": at,
        "begin": tensor.storage_offset() * tensor.element_size() - span.begin,
        "device": str(tensor.device),
        "conjugate": tensor.is_conj(),
        "negative": tensor.is_neg(),
    }


def _placed(
    memory: bytes, address: int, tensors: Sequence[dict[str, Json]], number: int
) -> tuple[torch.UntypedStorage, int]:
    """Memory that holds these bytes: a storage, and where in it they begin."""
    device = next(tensor["device"] for tensor in tensors if tensor["memory"] == number)
    room = bytearray(len(memory) + 2 * _ALIGNMENT)
    begin = (address - ctypes.addressof(ctypes.c_char.from_buffer(room))) % _ALIGNMENT
    room[begin : begin + len(memory)] = memory
    # Of a buffer that is entered in the middle the storage begins there.
    host = torch.frombuffer(room, dtype=torch.uint8, offset=begin)
    if device == "cpu":
        return host.untyped_storage(), 0
    made = torch.empty(len(room), dtype=torch.uint8, device=device)
    begin = (address - made.data_ptr()) % _ALIGNMENT
    made[begin : begin + len(memory)] = host[: len(memory)].to(device)
    return made.untyped_storage(), begin


def rebuilt_tensor(
    tensor: dict[str, Json], places: Sequence[tuple[torch.UntypedStorage, int]]
) -> torch.Tensor:
    """A tensor that `Call` described, on the memory at its place."""
    storage, begin = places[tensor["memory"]]
    dtype = getattr(torch, tensor["dtype"])
    made = torch.empty(0, dtype=dtype, device=tensor["device"])
    offset = (begin + tensor["begin"]) // made.element_size()
    made.set_(storage, offset, tensor["shape"], tensor["strides"])
    if tensor["conjugate"]:
        made = torch._conj(made)
    return torch._neg_view(made) if tensor["negative"] else made


def _rebuilt_generator(generator: dict[str, Json], state: bytes) -> engine.DeviceGenerator:
    made: engine.DeviceGenerator
    if generator["own"]:
        made = torch.Generator(generator["device"])
    else:
        made = _default_generator((), {"device": generator["device"]})
    made.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return made


def _value(value: Json, objects: dict[str, list[Any]]) -> Any:
    if isinstance(value, list):
        return [_value(item, objects) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, what),) = value.items()
    if kind in objects:
        return objects[kind][what]
    if kind == "float":
        return float.fromhex(what)
    if kind == "complex":
        return complex(*(float.fromhex(part) for part in what))
    if kind == "device":
        return torch.device(what)
    if kind in _NAMED.values():
        return getattr(torch, what)
    raise ValueError(f"an argument of type {what} is not kept")


def complete(call: dict[str, Json]) -> bool:
    """True if all that a call was given was kept."""
    return not any("unknown" in value for value in _leaves([call["arguments"], call["keywords"]]))


def _leaves(value: Json) -> Any:
    if isinstance(value, dict) and len(value) != 1:
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        yield value


def plain_arguments(value: Any) -> Any:
    """An operator's arguments that are no tensors, in their places; objects by their type alone."""
    if isinstance(value, list | tuple):
        return [plain_arguments(item) for item in value]
    if isinstance(value, dict):
        return [(name, plain_arguments(value[name])) for name in sorted(value)]
    if isinstance(value, str | bytes | bool | int | float | complex | torch.dtype | torch.device):
        return value
    return type(value).__name__
