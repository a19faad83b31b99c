"""What optimizers keep, as events: after some of their steps, when it is saved, and at the end."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import Optimizer

from repro_audit.capture.generators import digest_of
from repro_audit.capture.guards import unseen_by_dynamo
from repro_audit.capture.modules import FirstSeen
from repro_audit.capture.outside import leaves
from repro_audit.capture.replaced import Replaced
from repro_audit.model.codes import KIND_STATE, OPTIMIZER

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode
    from repro_audit.capture.recorder import Recorder

_Named = tuple[str | None, torch.Tensor | bytes]


class States:
    """Records the tensors that an optimizer keeps for its parameters, as one event.

    They are as large as the model once or twice, and what differs there most often shows in a
    gradient before or in a parameter after. So they are read after an optimizer's first step, its
    second, fourth, eighth and so on, or after each where the operators inside are looked at too;
    where the program asks for them to save them; and at the end, of optimizers that are still
    there. A recorder of `beginnings` has them read before each step instead, with the options.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replaced = Replaced()
        self._optimizers: FirstSeen[Optimizer] = FirstSeen()
        self._steps: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        """Hear of what is saved."""
        self._replaced.wrap(Optimizer, "state_dict", self._saving)

    def uninstall(self) -> None:
        """Give the function back."""
        self._replaced.give_back()

    def constructed(self, optimizer: Optimizer, mode: OpMode) -> None:
        """Note that there is an optimizer."""
        self._optimizers.see(optimizer, mode.name)

    def stepped(self, optimizer: Optimizer, mode: OpMode, code: int | None) -> None:
        """An optimizer has made a step."""
        self._optimizers.see(optimizer, mode.name)
        count = self._steps[optimizer] = self._steps.get(optimizer, 0) + 1
        due = count & (count - 1) == 0 and not self._recorder.beginnings
        if self._recorder.optimizer_ops or due:
            self._record(optimizer, mode, code)

    def begins(self, optimizer: Optimizer, mode: OpMode, code: int | None) -> None:
        """An optimizer is about to make a step: record what it has, even where that is nothing."""
        self._record(optimizer, mode, code, counted=True)
        op = f"options:{type(optimizer).__name__}"
        self._recorder.add(KIND_STATE, OPTIMIZER, op, _options(optimizer), code=code)

    def end(self) -> None:
        """Record what the optimizers that are still there end with."""
        mode = self._recorder.mode()
        if mode is not None and not mode.name:
            for optimizer in self._optimizers.in_order():
                self._record(optimizer, mode, None)

    def _saving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def state_dict(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            recorder = self._recorder
            mode = recorder.mode()
            if recorder.active and mode is not None and not torch.compiler.is_compiling():
                self._record(optimizer, mode, recorder.locator.number(sys._getframe(1)))
            return original(optimizer, *args, **kwargs)

        unseen_by_dynamo(state_dict)
        return state_dict

    def _in_order(self, kept: list[_Named]) -> list[_Named]:
        """By name, where what was saved and loaded may stand in another order."""
        return sorted(kept, key=lambda leaf: leaf[0] or "") if self._recorder.beginnings else kept

    def _record(
        self, optimizer: Optimizer, mode: OpMode, code: int | None, *, counted: bool = False
    ) -> None:
        kept = _kept(optimizer, mode)
        # Before a model is first called its parameters have no names: their places tell as much.
        ordered = kept.items() if self._recorder.beginnings else sorted(kept.items())
        outputs: list[_Named] = [
            (name, value)
            for owner, state in ordered
            for name, value in self._in_order(leaves(state, owner))
            # Numbers may tell the time, or where something is; what is learnt is in tensors.
            if isinstance(value, torch.Tensor)
        ]
        if counted:
            many = len(outputs)
            outputs.insert(0, (f"tensors={many}", digest_of(many)))
        if outputs:
            op = f"state:{type(optimizer).__name__}"
            with self._recorder.readings.together():
                self._recorder.add(KIND_STATE, OPTIMIZER, op, outputs, code=code)


def _options(optimizer: Optimizer) -> list[_Named]:
    """What an optimizer was told, group by group; a plain value shows in its name."""
    options: list[_Named] = []
    for at, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            name = f"group{at}.{key}"
            if isinstance(value, torch.Tensor):
                options.append((name, value))
            elif key != "params" and _is_plain(value):
                plain = _plain(value)
                options.append((f"{name}={plain!r}", digest_of(plain)))
    return options


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    """A value as it is once saved and loaded, in whichever format: JSON has lists alone."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        # NumPy's floats are floats.
        return float(value)
    return value


def _kept(optimizer: Any, mode: OpMode) -> dict[str, Any]:
    """What an optimizer keeps for each parameter, by the names of those, in their order."""
    # Of a subclass that stands for another optimizer it may be a property.
    state = vars(optimizer).get("state")
    if not isinstance(state, Mapping):
        return {}
    named = {id(tensor): owner for tensor, owner in parameters_of(optimizer, mode)}
    places = {key: at for at, key in enumerate(named)}
    found = {
        ".".join(filter(None, named.get(id(key), ("", f"entry{at}")))): (
            places.get(id(key), len(places)),
            value,
        )
        for at, (key, value) in enumerate(state.items())
    }
    return {name: value for name, (_, value) in sorted(found.items(), key=lambda x: x[1][0])}


def parameters_of(optimizer: Any, mode: OpMode) -> list[tuple[torch.Tensor, tuple[str, str]]]:
    """(parameter, (module path, name)) of an optimizer; unnamed ones by group and place."""
    return [
        (parameter, mode.owner_of(parameter) or ("", f"group{group}.{at}"))
        for group, entry in enumerate(optimizer.param_groups)
        for at, parameter in enumerate(entry["params"])
    ]
