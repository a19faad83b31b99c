"""Draws from Python's and NumPy's global generators: a ledger of them, or a generator a line."""

from __future__ import annotations

import functools
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from repro_audit import engine
from repro_audit.capture.replaced import Replaced
from repro_audit.model.codes import OWN_GENERATOR, RANDOM

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

_PYTHON = ("random", "getrandbits")
_NO_DRAWS = {"get_state", "set_state"}


class Draws:
    """Wraps what draws from the global generators.

    With `ledger` each draw of Python's and NumPy's is an event with its call site; torch's are
    operators, and so events anyway. With `by_line` each line of the program draws from a generator
    of its own, so that a draw more or less at one of them changes nothing at another.
    Not seen: what a program draws from generators of its own.
    """

    def __init__(self, recorder: Recorder, *, ledger: bool, by_line: bool) -> None:
        self._recorder = recorder
        self._ledger = ledger
        self.by_line = by_line
        self._generators: dict[tuple[str, str], Any] = {}
        self._made: Counter[str] = Counter()
        self._replaced = Replaced()

    def install(self) -> None:
        """Wrap Python's generator and, if imported, NumPy's."""
        if not (self._ledger or self.by_line):
            return
        for name in _PYTHON:
            drawing = self._drawing(f"random.{name}", getattr(random, name), random.Random)
            # Its other methods call these two; an instance's attribute goes before its class's.
            self._replaced.put(random._inst, name, drawing)
            self._replaced.put(random, name, drawing)
        self.install_numpy()

    def install_numpy(self) -> None:
        """Wrap NumPy's functions that draw from its global generator, if it is imported."""
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is None or not (self._ledger or self.by_line):
            return
        owner = numpy_random.rand.__self__
        for name in dir(numpy_random):
            original = getattr(numpy_random, name)
            if getattr(original, "__self__", None) is owner and name not in _NO_DRAWS:
                drawing = self._drawing(f"numpy.random.{name}", original, numpy_random.RandomState)
                self._replaced.put(numpy_random, name, drawing)

    def uninstall(self) -> None:
        """Give the functions back."""
        self._replaced.give_back()

    def seed_torch(self, frame: FrameType | None, device: str) -> None:
        """Before an operator that draws: by line, its generator starts from a state of the line."""
        line = self._recorder.locator.line(frame) or ""
        self._made[line] += 1
        seed = _seed("torch", f"{line} {self._made[line]}")
        kind = device.partition(":")[0]
        # What a graph draws goes by what it is given at each replay.
        if kind == "cpu" or not engine.capturing():
            engine.seed_devices(kind, seed)

    def _drawing(self, label: str, original: Any, kind: Any) -> Any:
        name = label.rpartition(".")[2]

        @functools.wraps(original)
        def drawing(*args: Any, **kwargs: Any) -> Any:
            recorder = self._recorder
            if not recorder.active:
                return original(*args, **kwargs)
            frame = sys._getframe(1)
            if self._ledger:
                recorder.draw(f"draw:{label}", recorder.locator.number(frame))
            if not self.by_line:
                return original(*args, **kwargs)
            line = recorder.locator.line(frame) or ""
            own = self._generators.get((label, line))
            if own is None:
                own = self._generators[label, line] = kind(_seed(label, line))
            # Of Python's hidden generator the class's own method: its attribute is this function.
            return getattr(own, name)(*args, **kwargs)

        return drawing


def flags_of(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> int:
    """The flags of an operator that draws: from a global generator, or one of the program's own."""
    for value in (*args, *(kwargs or {}).values()):
        if isinstance(value, torch.Generator):
            of_devices = (generator for _, generator in engine.device_generators())
            # What an operator is given is a wrapper of its own.
            known = {
                getattr(generator, "_cdata", None)
                for generator in (torch.default_generator, *of_devices)
            }
            own = value._cdata not in known  # type: ignore[attr-defined]
            return RANDOM | OWN_GENERATOR if own else RANDOM
    return RANDOM


def _seed(label: str, line: str) -> int:
    digest = hashlib.blake2b(f"{label} {line}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
