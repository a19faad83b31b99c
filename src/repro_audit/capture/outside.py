"""What enters from outside torch: batches of data loaders, files, the inputs of the root module."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import serialization
from torch.utils import serialization as settings

from repro_audit.capture.replaced import Replaced

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder


class Loaders:
    """Records each batch of every `DataLoader`, and marks what runs while one is fetched.

    And the tensors of each file that `torch.load` reads: what it makes them with may be called
    before their contents are there.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replaced = Replaced()

    def install(self) -> None:
        """Wrap the loaders' `__next__`, and `torch.load`."""
        from torch.utils.data import dataloader

        self._replaced.wrap(dataloader._BaseDataLoaderIter, "__next__", self._giving)
        workers = dataloader._MultiProcessingDataLoaderIter
        self._replaced.wrap(workers, "_try_get_data", self._receiving)
        self._replaced.wrap(torch, "load", self._loading)
        self._replaced.put(serialization, "load", torch.load)

    def uninstall(self) -> None:
        """Give the functions back."""
        self._replaced.give_back()

    def _giving(self, original: Any) -> Any:
        recorder = self._recorder

        def observed_next(iterator: Any) -> Any:
            mode = recorder.mode()
            if mode is None or not recorder.active:
                return original(iterator)
            mode.loading += 1
            try:
                batch = original(iterator)
            finally:
                mode.loading -= 1
            code = recorder.locator.number(sys._getframe(1))
            recorder.batch("DataLoader.__next__", leaves(batch), code)
            return batch

        return observed_next

    def _receiving(self, receive: Any) -> Any:
        """What workers send is unpickled in the order in which it arrives, which differs from run
        to run; the batch, given out in order, holds it all.
        """
        recorder = self._recorder

        def muted_receive(iterator: Any, *args: Any, **kwargs: Any) -> Any:
            mode = recorder.mode()
            if mode is None:
                return receive(iterator, *args, **kwargs)
            recorder.passed_by.loading(iterator)
            mode.muted += 1
            try:
                return receive(iterator, *args, **kwargs)
            finally:
                mode.muted -= 1

        return muted_receive

    def _loading(self, load: Any) -> Any:
        recorder = self._recorder

        def observed_load(*args: Any, **kwargs: Any) -> Any:
            value = load(*args, **kwargs)
            mapped = kwargs.get("mmap")
            # Of a mapped file the program may read a part.
            if not (settings.config.load.mmap if mapped is None else mapped):
                code = recorder.locator.number(sys._getframe(1))
                found = [leaf for leaf in leaves(value) if isinstance(leaf[1], torch.Tensor)]
                recorder.batch("torch.load", found, code)
            return value

        return observed_load


def leaves(
    value: Any, name: str = "", within: tuple[int, ...] = ()
) -> list[tuple[str | None, torch.Tensor | bytes]]:
    """The tensors and plain values of a nested batch, each with its place in it.

    Lists, tuples, mappings and dataclasses are gone into. Strings, bytes and numbers of one list
    are digested together, in order; objects of other kinds are left out. `within` are the
    dataclasses around it, by identity: one may hold itself.
    """
    if isinstance(value, torch.Tensor):
        return [(name or None, value)]
    if isinstance(value, str | bytes | int | float):
        return [(name or None, _plain([value]))]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
        return [(name or None, _plain([value.dtype.str, value.shape, value.tobytes()]))]
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, str | bytes | int | float) for item in value):
            return [(name or None, _plain(value))]
        items = enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if id(value) in within:
            return []
        within = (*within, id(value))
        names = (field.name for field in dataclasses.fields(value))
        items = ((each, getattr(value, each, None)) for each in names)
    return [leaf for at, item in items for leaf in leaves(item, _join(name, str(at)), within)]


def _plain(values: list[Any] | tuple[Any, ...]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for value in values:
        text = repr(value).encode()
        state.update(len(text).to_bytes(8, "little"))
        state.update(text)
    return state.digest()


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
