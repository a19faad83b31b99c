from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from repro_audit.model.codes import KINDS, PHASES
from repro_audit.trace import Trace, Writer, folder_of, processes_of


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Trace]:
    """A run made of events `(op, value)` or `(op, value, {column: ...})`, in execution order.

    `op` is completed to `aten.OP.default` unless it has a dot or colon; equal values have equal
    digests, None has none; a tuple of values is as many outputs. Columns: kind, step, phase,
    thread, module, code, cause (index), flags, shape, dtype, device, name, inputs (values), keep
    (bytes of output 0), sample (numbers in output 0, float32), length (of what it adds up), states
    (bytes of each generator's), process, time, numbers (those of the inputs that stand for
    numbers), call (as `capture.calls` describes it). Phase and kind follow
    from the op where they are not given. Threads in `cut` did not end. `undrawn` are the places of
    seedings after which nobody drew, `stale` files that an earlier run had left.
    Parameters may be `shared` by processes.
    seedings after which nobody drew, `stale` files that an earlier run had left, `outcome` is how
    all its processes ended.
    """
    count = iter(range(1_000_000))

    def make(
        events: Sequence[tuple[Any, ...]],
        manifest: dict[str, Any] | None = None,
        cut: Sequence[str] = (),
        plan: dict[str, Any] | None = None,
        undrawn: Sequence[int] = (),
        stale: Sequence[str] = (),
        shared: bool = False,
        outcome: str = "finished",
    ) -> Trace:
        number = next(count)
        own = tmp_path / f"{number}.sqlite"
        names = {"", *(columns.get("process", "") for _, _, *rest in events for columns in rest)}
        # The program's own last: it says which others there are.
        for process in sorted(names, reverse=True):
            mine = [e for e in events if (e[2] if e[2:] else {}).get("process", "") == process]
            path = own
            if process:
                folder_of(own).mkdir(exist_ok=True)
                path = folder_of(own) / f"{process}.sqlite"
            writer = Writer(path, run=f"run-{number}", plan=plan or {}, process=process)
            fill(writer, mine, cut)
            steps = max((e[2].get("step", 0) for e in mine if e[2:]), default=0) + 1
            names_there = [] if process else [place.stem for place in processes_of(own)]
            closing = {
                "steps": steps,
                "events": len(mine),
                "processes": names_there,
                "rank": int(process or 0),
                "undrawn": list(undrawn),
                "stale_reads": list(stale),
                "shared": shared,
                "outcome": outcome,
                "error": "ValueError: no" if outcome == "raised" else None,
            }
            writer.close(cut="" in cut, manifest=manifest or {}, closing=closing)
        return Trace.open(own)

    return make


def fill(writer: Writer, events: Sequence[tuple[Any, ...]], cut: Sequence[str]) -> None:
    calls: Counter[tuple[Any, ...]] = Counter()
    threads = {"": 0}
    reductions: set[tuple[int, int]] = set()
    for index, (name, value, *rest) in enumerate(events):
        columns: dict[str, Any] = rest[0] if rest else {}
        kind, phase = columns.get("kind", "op"), columns.get("phase", "forward")
        if name.startswith(("rng:", "seed:")):
            kind = phase = "rng"
        elif name.startswith("param:"):
            kind, phase = "param", "weights"
        elif kind == "batch":
            phase = "data"
        op = name if set(name) & set(".:") else f"aten.{name}.default"
        site = writer.site(columns.get("module", ""), op)
        step, owner = columns.get("step", 0), columns.get("thread", "")
        if owner not in threads:
            threads[owner] = writer.thread(owner)
        thread = threads[owner]
        place = (step, phase, site, thread)
        code = columns.get("code")
        writer.events.append(
            (
                index,
                KINDS.index(kind),
                step,
                PHASES.index(phase),
                thread,
                site,
                calls[place],
                None if code is None else writer.code(code),
                columns.get("cause"),
                columns.get("flags", 0),
            )
        )
        calls[place] += 1
        if "time" in columns:
            writer.clock.append((index, columns["time"]))
        spec = writer.spec(
            columns.get("dtype", "float32"),
            columns.get("shape", (4,)),
            columns.get("device", "cpu"),
        )
        values = value if isinstance(value, tuple) else (value,)
        for position, item in enumerate(values):
            row = (index, position, spec, digest(item), columns.get("name"))
            writer.outputs.append(row)
        called = columns.get("numbers", ())
        for position, item in enumerate(columns.get("inputs", ())):
            label = "arguments" if position in called else None
            writer.inputs.append((index, position, spec, digest(item), label))
        if columns.get("call") is not None:
            writer.call(index, columns["call"])
        if "sample" in columns:
            numbers = columns["sample"]
            writer.samples.append((index, 0, struct.pack(f"<{len(numbers)}f", *numbers)))
        if "length" in columns and (site, spec) not in reductions:
            reductions.add((site, spec))
            writer.reductions.append((site, spec, columns["length"]))
        if "keep" in columns:
            writer.payload(index, 1, 0, memoryview(columns["keep"]))
        for position, state in enumerate(columns.get("states", ())):
            writer.payload(index, 2, position, memoryview(state))
    for owner, thread in threads.items():
        if owner not in cut:
            writer.end(thread)


def digest(value: int | None) -> bytes | None:
    return None if value is None else value.to_bytes(16, "little")
