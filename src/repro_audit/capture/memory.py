"""Memory that `torch.empty` and kin hand out: who reads it before it is wholly written?"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from repro_audit import engine
from repro_audit.capture.pieces import adds, overwritten
from repro_audit.capture.storages import Storages, storage_of
from repro_audit.capture.written import Part, Written, part_of

if TYPE_CHECKING:
    from repro_audit.capture.operators import Operator

# The bytes of all maps together.
_MAPS = 1 << 28
# What is kept of memory that was handed out: so many bytes at its begin, middle and end.
_KEPT = 16
# Its C++ writes what it makes by address, which the dispatcher does not see.
_BY_ADDRESS = torch.quasirandom.SobolEngine.draw.__code__

_Found = tuple[int, tuple[tuple[int, bytes], ...]]


class UnwrittenMemory:
    """Storages made by `empty*` and not yet overwritten in full, and what was written of each.

    So memory that is filled piece by piece ends as written, and of the rest a reader is marked that
    reads more than was written. Where the pieces are too many to tell (each second number of a
    gigabyte), or named by indices that are not on the CPU, they count as unwritten: the mark is
    evidence beside a divergence, never a finding of its own. Of what is on the CPU a few bytes are
    kept: where they have changed and no operator wrote, native code or `.numpy()` did, and it is
    unwritten no more. With `poison`, a byte, the memory is filled on creation, so that a program
    that reads it gives another result.
    """

    def __init__(self, *, poison: int | None) -> None:
        # Until an operator writes it, what was there, or None where that is not known.
        self.unwritten: Storages[Written | _Found | None] = Storages()
        # Threads may fill parts of the same memory.
        self._lock = threading.RLock()
        self._maps = 0
        self._poison = poison
        self._noise: Storages[None] = Storages()

    def poisoned(self, result: Any) -> None:
        """Fill what an `empty*` operator returned, where that is asked for, and note nothing."""
        if self._poison is not None and type(result) is torch.Tensor and not result.is_meta:
            storage = storage_of(result)
            if storage is not None and storage.nbytes() and result.layout is torch.strided:
                _fill(storage, self._poison)

    def made(self, result: Any) -> None:
        """Note the storage an `empty*` operator returned; to be called by the dispatch mode."""
        if sys._getframe(2).f_code is _BY_ADDRESS:
            self.poisoned(result)
            return
        storage = _own_storage(result)
        if storage is None:
            return
        if self._poison is not None:
            _fill(storage, self._poison)
        self.unwritten.note(storage, _found(storage) if result.is_cpu else None)

    def note(self, tensor: Any) -> torch.UntypedStorage | None:
        """Count a tensor's storage as unwritten; returns it, if it has one of its own."""
        storage = _own_storage(tensor)
        if storage is not None:
            self.unwritten.note(storage, None)
        return storage

    def noise(self, tensors: Iterable[Any]) -> None:
        """Note scratch that an operator leaves for its backward: no input to compare runs by."""
        for tensor in tensors:
            storage = storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
            if storage is not None:
                self._noise.note(storage, None)

    def is_noise(self, tensor: torch.Tensor) -> bool:
        """True if a tensor is such scratch."""
        storage = storage_of(tensor) if self._noise else None
        return storage is not None and storage._cdata in self._noise

    def read_by(self, operator: Operator, args: Any, kwargs: Any) -> bool:
        """True if the operator reads such memory; operators that only overwrite it do not."""
        if operator.outside or (operator.returns == () and not operator.writes):
            return False
        positional, named = operator.read(args, kwargs)
        return self.holds(positional) or any(self.holds(value) for value in named.values())

    def wrote(self, tensor: torch.Tensor) -> None:
        """Note that a tensor was produced or written."""
        storage = storage_of(tensor)
        if storage is None or storage._cdata not in self.unwritten:
            return
        key = storage._cdata
        part, nbytes = part_of(tensor, storage)
        with self._lock:
            entry = self.unwritten.get(key)
            # Another thread may have been as fast.
            if part is None or entry is None:
                return
            if part.length == nbytes:
                self.unwritten.pop(key, None)
                return
            reference, written = entry
            if not isinstance(written, Written):
                if self._rewritten(storage, written, part):
                    return
                written = Written(nbytes, self._affords)
                self.unwritten[key] = reference, written
            written.by_me()
            written.add(part, nbytes)
            if written.whole():
                self.unwritten.pop(key, None)

    def in_pieces(self, operator: Operator, args: Any) -> bool:
        """True if an operator that is `partial` writes some of such memory: `piece` tells what."""
        if not operator.fills:
            return self.holds(args[0])
        storage = storage_of(args[0])
        return storage is not None and storage._cdata in self.unwritten and self.holds(args[1])

    def piece(self, operator: Operator, args: Any, kwargs: Any) -> tuple[bool, bool]:
        """Before an operator that writes some of its first argument, or moves what is unwritten.

        Notes what it will, and tells whether it reads unwritten memory, and whether all of that
        argument is written then, by this thread: another one may be at it still. Of what does not
        fit together, or is out of bounds, the operator itself complains.
        """
        if not operator.fills and adds(operator.name, args, kwargs):
            return True, False
        whole: bool | None = None
        with contextlib.suppress(IndexError, ValueError, TypeError):
            whole = self._overwrite(operator, args)
        if operator.fills:
            # What is moved is as unwritten as before.
            return whole is None, bool(whole)
        return self.holds(args[1:]), bool(whole)

    def _overwrite(self, operator: Operator, args: Any) -> bool | None:
        """Note what is written; None where that cannot be told. True if all of the tensor is then.

        As far as those of the source are, where an operator copies.
        """
        tensor = args[0]
        with self._lock:
            given = self._elements_of(args[1], tensor) if operator.fills else True
            mine = self._map_of(tensor)
            if mine is None or given is None:
                return None
            written, elements = mine
            places = ... if operator.fills else overwritten(operator.name, args)
            if places is None:
                return None
            elements[places] = given
            if given is not True:
                written.some_lost()
            alone = written.by_me()
            storage = tensor.untyped_storage()
            if written.whole():
                self.unwritten.pop(storage._cdata, None)
                return alone
            if tensor.numel() * tensor.element_size() >= storage.nbytes():
                return False
            return alone and bool(elements.all())

    def _elements_of(self, tensor: torch.Tensor, like: torch.Tensor) -> Any:
        """Which elements of a tensor that is copied were written, in the shape of its copy."""
        found = self._map_of(tensor)
        if found is None:
            return None
        return np.broadcast_to(found[1].all(-1, keepdims=True), (*like.shape, 1))

    def _map_of(self, tensor: torch.Tensor) -> tuple[Written, Any] | None:
        """A storage's map, and a tensor's elements in it; None where those are too many."""
        storage = storage_of(tensor)
        entry = None if storage is None else self.unwritten.get(storage._cdata)
        if storage is None or entry is None:
            return None
        reference, written = entry
        nbytes = storage.nbytes()
        if not isinstance(written, Written):
            written = Written(nbytes, self._affords)
            self.unwritten[storage._cdata] = reference, written
        elements = written.elements(tensor, nbytes)
        return None if elements is None else (written, elements)

    def holds(self, value: Any) -> bool:
        """True if a tensor, or one in a list, has memory that was not wholly written."""
        if isinstance(value, torch.Tensor):
            storage = storage_of(value)
            return (
                storage is not None
                and storage._cdata in self.unwritten
                and self._lacks(value, storage)
            )
        return isinstance(value, list | tuple) and any(self.holds(item) for item in value)

    def _lacks(self, tensor: torch.Tensor, storage: torch.UntypedStorage) -> bool:
        """True if some of a tensor was not written; of a storage that is not written in full."""
        with self._lock:
            entry = self.unwritten.get(storage._cdata)
            if entry is None:
                return False
            written = entry[1]
            if not isinstance(written, Written):
                if self._rewritten(storage, written):
                    return False
                with torch._C.DisableTorchFunction():
                    return tensor.numel() > 0
            part, nbytes = part_of(tensor, storage)
            return part is not None and not written.has(part, nbytes)

    def _rewritten(
        self, storage: torch.UntypedStorage, found: _Found | None, but: Part | None = None
    ) -> bool:
        """True if something else than an operator wrote it: then it is forgotten.

        That is, if it changed in all places that are looked at, `but` those that one just wrote.
        """
        if found is None or storage.nbytes() != found[0]:
            return False
        changed = [
            one != other
            for (place, one), (_, other) in zip(found[1], _found(storage)[1], strict=True)
            if but is None or place + len(one) <= but.begin or place >= but.end()
        ]
        if not changed or not all(changed):
            return False
        self.unwritten.pop(storage._cdata, None)
        return True

    def _affords(self, nbytes: int) -> bool:
        """Whether there is room for a map of so many bytes, or for as many more of one."""
        if self._maps + nbytes > _MAPS:
            self.unwritten.forget()
            # Another thread may be about to note one.
            known = [written for _, written in list(self.unwritten.values())]
            self._maps = sum(written.room for written in known if isinstance(written, Written))
        if self._maps + nbytes > _MAPS:
            return False
        self._maps += nbytes
        return True


def _own_storage(tensor: Any) -> torch.UntypedStorage | None:
    """A plain tensor's storage, where memory belongs to it."""
    if type(tensor) is not torch.Tensor or tensor.is_meta:
        return None
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return None
    storage = tensor.untyped_storage()
    if not storage.data_ptr() or not storage.nbytes():
        return None
    return storage


def _found(storage: torch.UntypedStorage) -> _Found:
    """What memory of the CPU holds: its size, and its bytes at some places."""
    nbytes, address = storage.nbytes(), storage.data_ptr()
    size = min(_KEPT, nbytes)
    places = 0, (nbytes - size) // 2, nbytes - size
    return nbytes, tuple((place, ctypes.string_at(address + place, size)) for place in places)


def traced() -> bool:
    """True while make_fx traces: `linearize` then computes with memory that nobody wrote."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _fill(storage: torch.UntypedStorage, byte: int) -> None:
    """Fill a storage with a byte; not where that would become part of a captured graph."""
    if storage.device.type != "cpu" and engine.capturing():
        return
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch(), torch.no_grad():
        memory = torch.empty(0, dtype=torch.uint8, device=storage.device)
        memory.set_(storage).fill_(byte)
