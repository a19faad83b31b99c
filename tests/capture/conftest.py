"""Capture in this process: a sink in memory, and a recorder around a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from repro_audit.capture import Recorder
from repro_audit.model.codes import KINDS, PHASES


@dataclass(frozen=True)
class Seen:
    """An event as the trace would give it back."""

    index: int
    kind: str
    step: int
    phase: str
    thread: str
    module: str
    op: str
    call_index: int
    call_site: str | None
    cause: int | None
    tainted: bool
    random: bool
    recompute: bool
    backward_code: bool
    outputs: tuple[tuple[Any, ...], ...]  # (dtype, shape, digest, name)

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.step, self.phase, self.module, self.op, self.call_index, self.thread)

    @property
    def digests(self) -> list[bytes | None]:
        return [digest for _, _, digest, _ in self.outputs]


@dataclass
class MemorySink:
    """A recorder.Sink that keeps its rows, cleared in place at each flush as a file's would be."""

    events: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    clock: list[Any] = field(default_factory=list)
    threads: list[str] = field(default_factory=lambda: [""])
    ended: list[int] = field(default_factory=list)
    payloads: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    calls: dict[int, Any] = field(default_factory=dict)
    kept: dict[str, list[Any]] = field(default_factory=lambda: {"e": [], "o": [], "i": []})
    names: dict[str, dict[Any, int]] = field(default_factory=lambda: {"s": {}, "c": {}, "p": {}})
    discarded: int = 0

    def _number(self, kind: str, value: Any) -> int:
        return self.names[kind].setdefault(value, len(self.names[kind]))

    def site(self, module: str, op: str) -> int:
        return self._number("s", (module, op))

    def code(self, location: str, called_from: str | None) -> int:
        return self._number("c", location)

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        return self._number("p", (dtype, shape, device))

    def thread(self, name: str) -> int:
        self.threads.append(name)
        return len(self.threads) - 1

    def end(self, thread: int) -> None:
        self.ended.append(thread)

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        self.payloads[event, role, position] = bytes(view)

    def call(self, event: int, call: Any) -> None:
        self.calls[event] = json.loads(json.dumps(call))

    def flush(self) -> None:
        for key, rows in (("e", self.events), ("o", self.outputs), ("i", self.inputs)):
            self.kept[key] += rows
            rows.clear()

    def discard_connection(self) -> None:
        self.discarded += 1

    def seen(self) -> list[Seen]:
        """All events in the order of execution."""
        sites, codes, specs = ({n: v for v, n in self.names[k].items()} for k in "scp")
        outputs: dict[int, list[Any]] = {}
        for event, position, spec, digest, name in sorted(self.kept["o"], key=lambda row: row[:2]):
            assert position == len(outputs.setdefault(event, []))
            outputs[event].append((*specs[spec][:2], digest, name))
        return [
            Seen(
                index,
                KINDS[kind],
                step,
                PHASES[phase],
                self.threads[thread],
                *sites[site],
                call,
                None if code is None else codes[code],
                cause,
                bool(flags & 1),
                bool(flags & 2),
                bool(flags & 4),
                bool(flags & 32),
                tuple(outputs.get(index, ())),
            )
            for index, kind, step, phase, thread, site, call, code, cause, flags in sorted(
                self.kept["e"]
            )
        ]


@dataclass
class Recording:
    """What a function did, and what it returned."""

    sink: MemorySink
    recorder: Recorder
    result: Any
    seen: list[Seen]

    def ops(self, op: str, **where: Any) -> list[Seen]:
        """Events whose op is `op` (or begins with it, up to a dot) and whose fields are `where`."""
        return [
            event
            for event in self.seen
            if (event.op == op or event.op.startswith(f"{op}."))
            and all(getattr(event, name) == value for name, value in where.items())
        ]

    def values(self) -> list[tuple[Any, ...]]:
        """Keys and digests by thread, to compare two recordings."""
        return [
            (e.key, e.digests)
            for e in sorted(self.seen, key=lambda e: (e.thread, e.index))
            if e.kind != "rng"
        ]

    def unbound(self) -> list[Seen]:
        """Backward ops without a cause, but for those that only hand a gradient to its tensor."""
        return [
            e
            for e in self.seen
            if e.phase == "backward" and e.cause is None and not e.op.startswith("aten.detach.")
        ]


def record_call(function: Callable[[], Any], **options: Any) -> Recording:
    sink = MemorySink()
    recorder = Recorder(sink, **{"bases": (str(Path(__file__).parent),), **options})
    recorder.start()
    try:
        result = function()
    finally:
        recorder.stop()
    return Recording(sink, recorder, result, sink.seen())


@pytest.fixture
def record() -> Callable[..., Recording]:
    """Record a function from a fixed state of the generators."""

    def seeded(function: Callable[[], Any], **options: Any) -> Recording:
        torch.manual_seed(0)
        return record_call(function, **options)

    return seeded
