"""What a recording has kept, found by the names of its events, for a run that is given it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from repro_audit.model import SiteKey
from repro_audit.trace import Trace
from repro_audit.trace.schema import OUTPUT

# An event is asked for a few times, one after the other.
_LAST = 4


class Recorded:
    """The outputs that a recording kept whole. Costs a read of its columns, then one of a tensor.

    Raises TraceError as `Trace.open` does.
    """

    def __init__(self, path: Path) -> None:
        self._trace = Trace.open(path)
        self._events = {self._trace.key(i): i for i in self._trace.kept()}
        self._last: OrderedDict[tuple[int, int], torch.Tensor | None] = OrderedDict()

    def value(self, key: SiteKey, position: int) -> torch.Tensor | None:
        """Output `position` of the event of that name, on the host; None where it was not kept."""
        i = self._events.get(key)
        if i is None:
            return None
        if (i, position) not in self._last:
            self._last[i, position] = self._read(i, position)
            while len(self._last) > _LAST:
                self._last.popitem(last=False)
        return self._last[i, position]

    def _read(self, i: int, position: int) -> torch.Tensor | None:
        data = self._trace.payload(i, OUTPUT, position)
        if not data:
            return None
        spec = self._trace.event(i).outputs[position].spec
        dtype = getattr(torch, spec.dtype, None)
        if dtype is None:
            return None
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(spec.shape)
