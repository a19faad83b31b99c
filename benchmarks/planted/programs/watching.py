"""Notes what a program does, without repro-audit: what the right answers are made from.

Each operator that reaches a kernel of the CPU's is a line: which call of its kernel it is, and, by
hooks and marks of its own, the phase, module and step it belongs to. A module's backward is told by
autograd's numbers: the nodes made while the module ran.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import planting
import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import dataloader

_OUTSIDE = {"lift_fresh"}
# They compute nothing: memory that is not written, or that of an argument, whatever their schemas
# say.
_NOTHING = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_",
    "_unsafe_view", "_reshape_alias", "detach", "alias",
}  # fmt: skip
_LEAF = 2**64 - 1


class Watch(TorchDispatchMode):
    """Watches from its making to `ended`.

    PLANT_KERNELS names a file of the kernels to count, with how often they were called; with
    PLANT_ONLY_COUNTED that is all that is done.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.lines: list[dict[str, Any]] = []
        self.step = 0
        self.names: dict[int, str] = {}
        self.parameters: dict[int, tuple[str, str]] = {}
        self.optimizer: Any = None
        self.stack: list[str] = []
        self.ran: list[tuple[int, int, str]] = []
        self.begun: list[int] = []
        self.loading = self.optimizing = False
        self.owners: dict[int, tuple[str, str]] = {}
        self.owner = ""
        self.counts: Counter[tuple[Any, ...]] = Counter()
        known = Path(os.environ["PLANT_KERNELS"])
        names = json.loads(known.read_text()) if known.exists() else {}
        self.seen: set[str] = set(names)
        own = planting._kernel
        self.kernels = {
            name: planting.Kernel(name) for name in names if own is None or own.op != name
        }
        hooks.register_module_forward_pre_hook(self._enter)
        hooks.register_module_forward_hook(self._leave)
        self._watch_loaders()
        self.modes = contextlib.ExitStack()
        if "PLANT_ONLY_COUNTED" not in os.environ:
            self.modes.enter_context(self)

    def built(self, model: nn.Module, optimizer: Any) -> None:
        """The program has made its model and its optimizer."""
        self.names = {id(module): name for name, module in model.named_modules()}
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                self.parameters.setdefault(parameter.data_ptr(), (path, name))
        self.optimizer = optimizer
        optimizer.register_step_pre_hook(self._optimize)
        optimizer.register_step_post_hook(self._optimized)

    def stepped(self) -> None:
        """The program has made a step."""
        self.step += 1
        self.counts.clear()

    def ended(self) -> None:
        """The program is at its end."""
        self.modes.close()
        self.path.write_text(json.dumps(self.lines))
        own = planting._kernel
        kernels = self.kernels if own is None else {**self.kernels, own.op: own}
        calls = {name: kernels[name].calls if name in kernels else 0 for name in sorted(self.seen)}
        Path(os.environ["PLANT_KERNELS"]).write_text(json.dumps(calls))

    # -- marks --------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.stack.append(self.names.get(id(module), type(module).__name__))
        self.begun.append(torch._C._autograd._get_sequence_nr())

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        made = torch._C._autograd._get_sequence_nr()
        self.ran.append((self.begun.pop(), made, self.stack.pop()))

    def _optimize(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.optimizing, self.owner, self.owners = True, "", {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = self.parameters[parameter.data_ptr()]
                for tensor in (parameter, parameter.grad, *optimizer.state[parameter].values()):
                    if isinstance(tensor, torch.Tensor):
                        self.owners[tensor.data_ptr()] = name

    def _optimized(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.optimizing = False

    def _watch_loaders(self) -> None:
        original = dataloader._BaseDataLoaderIter.__next__

        def fetch(iterator: Any) -> Any:
            self.loading = True
            try:
                batch = original(iterator)
            finally:
                self.loading = False
            self._note("data", "", "DataLoader.__next__", None, _tensors(batch))
            return batch

        dataloader._BaseDataLoaderIter.__next__ = fetch

    # -- operators ----------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        name = f"{schema.name}.{schema.overload_name}".removesuffix(".")
        base = schema.name.removeprefix("aten::")
        kernel = self.kernels.get(name)
        number = None if kernel is None else kernel.calls
        phase, module = self._place(base, schema, args)
        result = func(*args, **kwargs)
        if kernel is not None and kernel.calls == number:
            number = None
        if not schema.name.startswith("aten::"):
            return result
        written = [] if base in _NOTHING else planting.written_by(name, args, kwargs, result)
        if written:
            self.seen.add(name)
        elif base in _OUTSIDE:
            # Gives what it was given: there is nothing in its kernel to err.
            written = [result]
        if not written:
            # A view, or memory: such as what a loader's worker sent, in the order of its arrival.
            return result
        op = f"aten.{base}.{schema.overload_name or 'default'}"
        random = "nondeterministic_seeded" in {tag.name for tag in func.tags}
        self._note(phase, module, op, number, written, kernel=name, random=random)
        return result

    def _place(self, base: str, schema: Any, args: Any) -> tuple[str, str]:
        node = torch._C._current_autograd_node()
        if node is not None:
            return "backward", self._made_by(node)
        if self.stack:
            return "forward", self.stack[-1]
        if self.optimizing:
            return "optimizer", self._owner(args)
        if self.loading or base in _OUTSIDE:
            return "data", ""
        first = schema.arguments[0] if schema.arguments else None
        writes = first is not None and first.alias_info is not None and first.alias_info.is_write
        if writes and isinstance(args[0], nn.Parameter):
            return "weights", self.parameters.get(args[0].data_ptr(), ("", ""))[0]
        return "forward", ""

    def _made_by(self, node: Any) -> str:
        number = node._sequence_nr()
        if number == _LEAF:
            return self.parameters.get(node.variable.data_ptr(), ("", ""))[0]
        within = [(begin, path) for begin, end, path in self.ran if begin <= number < end]
        # Of modules that began at one number the inner one left first.
        return max(within, key=lambda ran: ran[0])[1] if within else ""

    def _owner(self, args: Any) -> str:
        first = args[0] if args else None
        if isinstance(first, list | tuple):
            if len(first) != 1:
                return ""
            first = first[0]
        if isinstance(first, torch.Tensor):
            self.owner = self.owners.get(first.data_ptr(), (self.owner, ""))[0]
        return self.owner

    def _note(
        self,
        phase: str,
        module: str,
        op: str,
        call: int | None,
        written: list[torch.Tensor],
        *,
        kernel: str = "",
        random: bool = False,
    ) -> None:
        place = (phase, module, op)
        index = self.counts[place]
        self.counts[place] += 1
        line = {
            "step": self.step,
            "phase": phase,
            "module": module,
            "op": op,
            "call_index": index,
            "kernel": kernel,
            "call": call,
            "random": random,
            "outputs": [],
        }
        for tensor in written:
            values = planting.array_of(tensor)
            line["outputs"].append(
                {
                    "shape": list(values.shape),
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "kinds": planting.kinds_for(values),
                    "parameter": tensor.data_ptr() in self.parameters,
                    "of": ".".join(filter(None, self.owners.get(tensor.data_ptr(), ())))
                    if self.optimizing
                    else "",
                    "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
                }
            )
        self.lines.append(line)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)]
