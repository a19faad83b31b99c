"""Reads a run's trace: columns for comparing many events, single events on demand."""

from __future__ import annotations

import copy
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from repro_audit.errors import TraceError
from repro_audit.model import Event, EventKind, Json, SiteKey, TensorSpec
from repro_audit.model.codes import (
    BACKWARD_CODE,
    HELD,
    KIND_RNG,
    KINDS,
    PHASES,
    RANDOM,
    RECOMPUTE,
    TAINTED,
)
from repro_audit.trace import seal
from repro_audit.trace.columns import Signatures
from repro_audit.trace.file import TraceFile, is_empty
from repro_audit.trace.folders import folder_of, processes_of

# Where a mark has the call site.
_LINE = 3
_COLUMNS = ("kind", "step", "phase", "thread", "site", "call_index", "flags")


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of one of a run's processes; of one that has not `ended` only a part is known."""

    process: str
    name: str
    ended: bool


class Trace:
    """What a run did, opened read-only by `Trace.open`: its process and those that it started.

    `kind`, `step`, `phase`, `thread`, `site`, `call_index` and `flags` are arrays over the events
    in order of execution, all read on opening; time and memory grow with the number of events.
    Events of several processes stand in the order of the machine's clock. `thread` numbers
    `threads`, `site` numbers `sites`; both are this trace's own.
    """

    def __init__(self, files: Sequence[TraceFile]) -> None:
        own = files[0]
        self.path = own.path
        self.files = tuple(files)
        self.run = own.meta.get("run", own.path.stem)
        self.plan: dict[str, Any] = json.loads(own.meta.get("plan", "{}"))
        self.manifest: dict[str, Any] = json.loads(own.meta.get("manifest", "{}"))
        self.closing = own.closing
        self.threads: list[Thread] = []
        self.sites: dict[int, tuple[str, str]] = {}
        # Of each event, in the order of the arrays: which file it is in, and where there.
        self._file, self._at = _in_order(files)
        threads, sites = [], []
        for file in files:
            known = sorted(file.threads)
            threads.append({number: at for at, number in enumerate(known, len(self.threads))})
            self.threads += [Thread(file.process, *file.threads[number]) for number in known]
            sites.append(max(self.sites, default=-1) + 1)
            self.sites.update({sites[-1] + at: name for at, name in file.sites.items()})
        columns = [self._merged_column(which) for which in range(7)]
        self.kind, self.step, self.phase, self.thread, self.site, *others = columns
        self.call_index, self.flags = others
        if threads != [{number: number for number in threads[0]}]:
            self.thread = array("q", map(lambda n, t: threads[n][t], self._file, self.thread))
            self.site = array("q", map(lambda n, s: sites[n] + s, self._file, self.site))
        self._merged: list[dict[int, int] | None] = [None] * len(files)
        self._signatures: Signatures | None = None
        # Of a part, the trace that it is one of, and where in that each of its events is.
        self._whole: tuple[Trace, npt.NDArray[np.int64]] | None = None

    @classmethod
    def open(cls, path: Path, *, partial: bool = False) -> Trace:
        """Open a run's trace; one without its closing record only if `partial`.

        The traces of the processes that the program started lie in the directory `PATH-processes`
        and belong to it. One that was killed left a part, which is read. Raises TraceError for a
        missing, truncated, altered, foreign or unknown file, naming the way out.
        """
        files = [TraceFile.open(path, partial=partial)]
        trace: Trace | None = None
        try:
            others = processes_of(path)
            lost = set(files[0].closing.get("processes", ())) - {other.stem for other in others}
            if lost:
                raise TraceError(
                    f"{folder_of(path)} is not as it was: no {min(lost)}.sqlite; a recording of "
                    "several processes is a file and that directory"
                )
            # One after the other: where one cannot be read, those before it are closed.
            files.extend(_member(other) for other in others if not is_empty(other))
            trace = cls(files)
        except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise TraceError(
                f"{path} cannot be read as a trace: {error}; run or record the program again"
            ) from error
        finally:
            if trace is None:
                for file in files:
                    file.close()
        return trace

    def part(self, wanted: npt.NDArray[np.bool_], *, later: int = 0) -> Trace:
        """The events for which an array says so, as a trace whose steps are `later` more.

        Calls are numbered from 0 again. The files are the whole's, which closes them. Of a thread,
        what is left out must be what comes first or last.
        """
        part = copy.copy(self)
        places = np.flatnonzero(wanted)
        for name in (*_COLUMNS, "_file", "_at"):
            setattr(part, name, _picked(getattr(self, name), places))
        part.step = array("q", (np.frombuffer(part.step, np.int64) + later).tobytes())
        calls = np.frombuffer(part.call_index, np.int64).copy()
        named = (part.thread, part.step, part.phase, part.site)
        columns = [np.frombuffer(column, np.int64) for column in named]
        _, group = np.unique(np.stack(columns), axis=1, return_inverse=True)
        least = np.full(len(calls), np.iinfo(np.int64).max)
        np.minimum.at(least, group.ravel(), calls)
        part.call_index = array("q", (calls - least[group.ravel()]).tobytes())
        part._merged = [None] * len(self.files)
        whole = self.signatures
        part._signatures = Signatures(whole.values[places], whole.present[places])
        part._whole = self, places
        return part

    def until(self, step: int) -> Trace:
        """The steps before one, without what a run's end records of weights and optimizers."""
        wanted = np.frombuffer(self.step, np.int64) < step
        held = np.flatnonzero(wanted & np.isin(np.frombuffer(self.kind, np.int64), list(HELD)))
        # That has no line.
        lines = [mark[_LINE] for mark in self.marks(held.tolist(), shapes=False)]
        wanted[held[[line is None for line in lines]]] = False
        return self.part(wanted)

    def ending(self) -> npt.NDArray[np.int64]:
        """The events by which a run's end records once more what models and optimizers hold.

        Of a part there are none: whoever took it numbers its steps, and knows what they go with.
        """
        if self._whole is not None:
            return np.empty(0, np.int64)
        kind, thread = np.frombuffer(self.kind, np.int64), np.frombuffer(self.thread, np.int64)
        held = np.isin(kind, list(HELD))
        made = np.array([int(file.closing.get("steps", 0)) for file in self.files], np.int64)
        late = np.frombuffer(self.step, np.int64) >= made[np.frombuffer(self._file, np.int64)]
        # Of a run that made no step what its models began with is of the same step.
        done = np.full(len(self.threads), -1, np.int64)
        ran = np.flatnonzero(~held & (kind != KIND_RNG))
        np.maximum.at(done, thread[ran], ran)
        found = np.flatnonzero(held & late & (np.arange(len(kind)) > done[thread]))
        marks = self.marks(found.tolist(), shapes=False)
        return found[[mark[_LINE] is None for mark in marks]] if marks else found

    def whole_key(self, i: int) -> SiteKey:
        """What names event `i` in a run, though this is but a part of its trace."""
        if self._whole is None:
            return self.key(i)
        whole, places = self._whole
        return whole.whole_key(int(places[i]))

    def __len__(self) -> int:
        return len(self.kind)

    def site_name(self, i: int) -> tuple[str, str]:
        """(module path, op) of event `i`."""
        return self.sites[self.site[i]]

    def key(self, i: int) -> SiteKey:
        """What names event `i` in any run."""
        module, op = self.site_name(i)
        thread = self.owner(i)
        return SiteKey(
            step=self.step[i],
            phase=PHASES[self.phase[i]],
            module=module,
            op=op,
            call_index=self.call_index[i],
            thread=thread.name,
            process=thread.process,
        )

    def find(self, key: SiteKey) -> int | None:
        """The event of that name; None where there is none."""
        for i, step in enumerate(self.step):
            if step == key.step and self.key(i) == key:
                return i
        return None

    def signature(self, i: int) -> bytes | None:
        """Bytes that are equal for equal outputs; None where no digest was taken."""
        return self.signatures.of(i)

    @property
    def signatures(self) -> Signatures:
        """The same of all events, in bulk."""
        if self._signatures is None:
            each = [file.signatures() for file in self.files]
            self._signatures = each[0] if len(each) == 1 else self._merged_signatures(each)
        return self._signatures

    def event(self, i: int) -> Event:
        """Event `i` with its outputs and, where they were kept, inputs."""
        file, number = self._found(i)
        code, caller, cause = file.source(number)
        flags = self.flags[i]
        return Event(
            index=i,
            kind=cast(EventKind, KINDS[self.kind[i]]),
            key=self.key(i),
            call_site=code,
            called_from=caller,
            cause=self._index(self._file[i], file.place(cause)),
            outputs=file.tensors("output", number),
            inputs=file.tensors("input", number) or None,
            tainted=bool(flags & TAINTED),
            random=bool(flags & RANDOM),
            recompute=bool(flags & RECOMPUTE),
            backward_code=bool(flags & BACKWARD_CODE),
        )

    def marks(self, events: Sequence[int], *, shapes: bool) -> list[tuple[Any, ...]]:
        """What each of these events is, at which line, and what it gives first.

        Equal for what is the same in two runs; with `shapes` dtypes and shapes are part of it.
        """
        found = [(self._file[i], self._found(i)[1]) for i in events]
        known = {}
        for which in {which for which, _ in found}:
            numbers = [number for owner, number in found if owner == which]
            known[which] = self.files[which].marks(min(numbers), max(numbers))
        marks = []
        for i, (which, number) in zip(events, found, strict=True):
            code, spec = known[which][number]
            given = (spec.dtype, spec.shape) if shapes and spec is not None else None
            marks.append((self.kind[i], self.phase[i], self.site_name(i), code, given))
        return marks

    def owner(self, i: int) -> Thread:
        """The thread that event `i` belongs to."""
        return self.threads[self.thread[i]]

    @property
    def places(self) -> array[int]:
        """The place of each event among those of its process."""
        return self._at

    def place(self, i: int) -> int:
        """The place of event `i` among those of its process."""
        return self._at[i]

    def maker(self, i: int, digest: bytes) -> int | None:
        """The last event before event `i`, in its process, that gave such bits."""
        file, number = self._found(i)
        return self._index(self._file[i], file.maker(digest, number))

    def payload(self, i: int, role: int, position: int) -> bytes | None:
        """The kept bytes of event `i`, or None.

        Role 0: memory that its arguments lie in. 1: an output. 2: the state of a generator.
        """
        file, number = self._found(i)
        return file.payload(number, role, position)

    def samples(self, i: int) -> dict[int, bytes]:
        """The sampled elements of each output of event `i` that has some."""
        file, number = self._found(i)
        return file.samples(number)

    def measured(self, i: int) -> dict[tuple[int, int], Json]:
        """What was measured of event `i`, by output and what it was compared with."""
        file, number = self._found(i)
        return file.measured(number)

    def length(self, event: Event) -> int:
        """How many numbers go into one result of an event; 0 where that is not known."""
        file = self.files[self._file[event.index]]
        return file.reductions.get((self.site_name(event.index), event.outputs[0].spec), 0)

    def reductions(self) -> dict[int, int]:
        """How many numbers go into one result of the events of each site, at most."""
        longest: dict[tuple[str, str], int] = {}
        for file in self.files:
            for (name, _), length in file.reductions.items():
                longest[name] = max(longest.get(name, 0), length)
        return {site: longest[name] for site, name in self.sites.items() if name in longest}

    def kept(self) -> list[int]:
        """The events of which outputs were kept whole, in no order."""
        found: list[int] = []
        for number, file in enumerate(self.files):
            places = (self._index(number, place) for place in file.kept())
            found.extend(place for place in places if place is not None)
        return found

    def call(self, i: int) -> Json | None:
        """The call of operator `i`, where it was kept: see `capture.calls`."""
        file, number = self._found(i)
        return file.call(number)

    def rank(self, i: int) -> int:
        """The rank in its process group of the process of event `i`; 0 where it has none."""
        return int(self.files[self._file[i]].closing.get("rank") or 0)

    def undrawn(self, i: int) -> bool:
        """True if event `i` seeded a generator that nobody drew from in this run."""
        file, number = self._found(i)
        return number in file.closing.get("undrawn", ())

    @property
    def stale_reads(self) -> list[str]:
        """Files that it read as an earlier run of the audit had left them."""
        return [path for file in self.files for path in file.closing.get("stale_reads", ())]

    @property
    def steps(self) -> int:
        """How many steps the process made that made the most."""
        return max(int(file.closing.get("steps", 0)) for file in self.files)

    def devices(self) -> set[str]:
        """The devices that recorded tensors were on."""
        specs: Iterator[TensorSpec] = (s for file in self.files for s in file.specs.values())
        return {spec.device for spec in specs}

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()

    def _merged_column(self, which: int) -> array[int]:
        columns = [file.columns[which] for file in self.files]
        if len(columns) == 1:
            return columns[0]
        return array("q", map(lambda n, at: columns[n][at], self._file, self._at))

    def _merged_signatures(self, each: Sequence[Signatures]) -> Signatures:
        begins = np.cumsum([0, *(len(file.ids) for file in self.files)])
        places = begins[np.frombuffer(self._file, np.int64)] + np.frombuffer(self._at, np.int64)
        values = np.concatenate([one.values for one in each])
        present = np.concatenate([one.present for one in each])
        return Signatures(values[places], present[places])

    def _found(self, i: int) -> tuple[TraceFile, int]:
        file = self.files[self._file[i]]
        return file, file.ids[self._at[i]]

    def _index(self, number: int, at: int | None) -> int | None:
        """Where in this trace the event is that is `at` in a file."""
        if at is None or (len(self.files) == 1 and self._whole is None):
            return at
        found = self._merged[number]
        if found is None:
            found = self._merged[number] = {
                place: i
                for i, (owner, place) in enumerate(zip(self._file, self._at, strict=True))
                if owner == number
            }
        # An event that a part has need not have its cause.
        return found.get(at) if self._whole is not None else found[at]


def _picked(column: array[int], places: npt.NDArray[np.int64]) -> array[int]:
    return array("q", np.frombuffer(column, np.int64)[places].tobytes())


def _member(path: Path) -> TraceFile:
    """The trace of a process that was started: what is sealed must be whole, else it is a part."""
    if seal.intact(path) is not None:
        return TraceFile.open(path, partial=False)
    file = TraceFile.open(path, partial=True)
    # It may have been killed while it wrote its last words.
    file.closing = {}
    return file


def _in_order(files: Sequence[TraceFile]) -> tuple[array[int], array[int]]:
    """Files and places in them of all events, in the order of execution; each file has its own."""
    if len(files) == 1:
        count = len(files[0].ids)
        return array("q", [0]) * count, array("q", range(count))
    timed: list[tuple[int, int, int]] = []
    for number, file in enumerate(files):
        # What has no time came before the program started its first process.
        last = 0
        for at, event in enumerate(file.ids):
            last = max(last, file.clock.get(event, 0))
            timed.append((last, number, at))
    timed.sort()
    return array("q", (item[1] for item in timed)), array("q", (item[2] for item in timed))
