"""The state a program ends in, for `--self-check`: parameters, buffers, generators."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UnsupportedTensorError

if TYPE_CHECKING:
    from torch import Tensor, nn


class EndState:
    """Keeps every parameter and buffer registered with a module, and digests them at the end.

    This is all that touches the program in an unobserved run: a hook at registration, no mode, no
    other hook. The tensors live until the end, so a program that makes many models needs the
    memory for them all.
    """

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[str, Tensor]] = {}

    def install(self) -> None:
        """Begin to keep what modules register; called once torch is imported."""
        from torch.nn.modules import module as hooks

        hooks.register_module_parameter_registration_hook(self._registered)
        hooks.register_module_buffer_registration_hook(self._registered)

    def forget(self) -> None:
        """Begin anew: what there is belongs to the process that this one is a fork of."""
        self._tensors.clear()

    def write(self, path: Path, process: str) -> bool:
        """Write `{item: digest}` as JSON: tensors in order of registration, generator states.

        Another `process` than the program's own writes a file beside `path`, if it has tensors;
        False if not.
        """
        if process and not self._tensors:
            return False
        from torch.nn.parameter import is_lazy

        from repro_audit import engine
        from repro_audit.capture.generators import states

        items: dict[str, str] = {}
        for number, (name, tensor) in enumerate(self._tensors.values()):
            if is_lazy(tensor):
                continue
            shape = ",".join(str(size) for size in tensor.shape)
            label = f"tensor {number}: {name} {tensor.dtype}[{shape}]"
            # Lazy, meta and sparse tensors have no bits of their own to end in.
            with contextlib.suppress(UnsupportedTensorError):
                items[label] = engine.tensor_digest(tensor.detach()).hex()
        for name, digest in states():
            items[f"generator {name}"] = digest.hex()
        place = path.with_name(f"{path.stem}.{process}.json") if process else path
        place.write_text(json.dumps(items, indent=0), encoding="utf-8")
        return True

    def _registered(self, module: nn.Module, name: str, tensor: Any) -> None:
        if tensor is not None and id(tensor) not in self._tensors:
            self._tensors[id(tensor)] = (f"{type(module).__name__}.{name}", tensor)


def read(path: Path) -> dict[str, str]:
    """What the processes of a run wrote; the items of others than its own say whose they are."""
    items: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    for other in sorted(path.parent.glob(f"{path.stem}.*.json")):
        process = other.name.removeprefix(f"{path.stem}.").removesuffix(".json")
        found = json.loads(other.read_text(encoding="utf-8"))
        items.update({f"process {process}: {item}": digest for item, digest in found.items()})
    return items
