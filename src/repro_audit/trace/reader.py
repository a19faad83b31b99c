"""Reads a trace: columns for comparing many events, single events on demand."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from repro_audit.errors import TraceError
from repro_audit.model import Event, EventKind, Output, SiteKey, TensorSpec
from repro_audit.trace import seal
from repro_audit.trace.schema import (
    APPLICATION_ID,
    KINDS,
    PHASES,
    RANDOM,
    RECOMPUTE,
    TAINTED,
    VERSION,
)

_AGAIN = "run or record the program again"


class Trace:
    """A whole trace, opened read-only by `Trace.open`.

    `kind`, `step`, `phase`, `thread`, `site`, `call_index` and `flags` are arrays over the events
    in order of execution, all read on opening; time and memory grow with the number of events.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
        self.run = self.meta.get("run", path.stem)
        self.plan: dict[str, Any] = json.loads(self.meta.get("plan", "{}"))
        self.manifest: dict[str, Any] = json.loads(self.meta.get("manifest", "{}"))
        self.closing: dict[str, Any] = json.loads(self.meta.get("closing", "{}"))
        self.sites: dict[int, tuple[str, str]] = {
            number: (module, op)
            for number, module, op in connection.execute("SELECT id, module, op FROM site")
        }
        self.specs: dict[int, TensorSpec] = {
            number: TensorSpec(dtype, tuple(json.loads(shape)), device)
            for number, dtype, shape, device in connection.execute("SELECT * FROM spec")
        }
        rows = connection.execute(
            "SELECT id, kind, step, phase, thread, site, call_index, flags FROM event ORDER BY id"
        ).fetchall()
        columns = list(zip(*rows, strict=True)) if rows else [()] * 8
        self.ids, self.kind, self.step, self.phase = (array("q", c) for c in columns[:4])
        self.thread, self.site, self.call_index, self.flags = (array("q", c) for c in columns[4:])
        self._places: dict[int, int] | None = None
        self._signatures: list[bytes | None] | None = None

    @classmethod
    def open(cls, path: Path, *, partial: bool = False) -> Trace:
        """Open a trace; one without its closing record only if `partial`.

        Raises TraceError for a missing, truncated, altered, foreign or unknown file, naming the
        way out. Reads the file once to check its seal, which a `partial` one need not have.
        """
        if not path.is_file():
            raise TraceError(f"no trace at {path}; `repro-audit record TARGET -o FILE` makes one")
        connection: sqlite3.Connection | None = None
        trace: Trace | None = None
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION_ID:
                raise TraceError(f"{path} is not a repro-audit trace")
            if version != VERSION:
                raise TraceError(
                    f"{path} has trace version {version}, this program reads {VERSION}; {_AGAIN}"
                )
            closed = connection.execute("SELECT 1 FROM meta WHERE key = 'closing'").fetchone()
            if closed is None and not partial:
                raise TraceError(f"{path} has no closing record: its run did not end; {_AGAIN}")
            if not partial and not seal.intact(path):
                raise TraceError(f"{path} is damaged: not all of it is as written; {_AGAIN}")
            loaded = cls(path, connection)
            if not partial and loaded.closing.get("events") != len(loaded):
                raise TraceError(
                    f"{path} is damaged: {len(loaded)} events, "
                    f"{loaded.closing.get('events')} were written; {_AGAIN}"
                )
            trace = loaded
        except (sqlite3.Error, OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise TraceError(f"{path} cannot be read as a trace: {error}; {_AGAIN}") from error
        finally:
            if trace is None and connection is not None:
                connection.close()
        return trace

    def __len__(self) -> int:
        return len(self.ids)

    def site_name(self, i: int) -> tuple[str, str]:
        """(module path, op) of event `i`."""
        return self.sites[self.site[i]]

    def key(self, i: int) -> SiteKey:
        """What names event `i` in any run."""
        module, op = self.site_name(i)
        return SiteKey(
            self.step[i], PHASES[self.phase[i]], module, op, self.call_index[i], self.thread[i]
        )

    def signature(self, i: int) -> bytes | None:
        """Bytes that are equal for equal outputs; None where no digest was taken."""
        if self._signatures is None:
            self._signatures = self._load_signatures()
        return self._signatures[i]

    def event(self, i: int) -> Event:
        """Event `i` with its outputs and, where they were kept, inputs."""
        number = self.ids[i]
        code, cause = self._connection.execute(
            "SELECT location, cause FROM event LEFT JOIN code ON code.id = event.code "
            "WHERE event.id = ?",
            (number,),
        ).fetchone()
        flags = self.flags[i]
        return Event(
            index=i,
            kind=cast(EventKind, KINDS[self.kind[i]]),
            key=self.key(i),
            call_site=code,
            cause=self._place(cause),
            outputs=self._tensors("output", number),
            inputs=self._tensors("input", number) or None,
            tainted=bool(flags & TAINTED),
            random=bool(flags & RANDOM),
            recompute=bool(flags & RECOMPUTE),
        )

    def payload(self, i: int, role: int, position: int) -> bytes | None:
        """The kept bytes of an input (role 0) or output (role 1) of event `i`, or None."""
        chunks = self._connection.execute(
            "SELECT data FROM payload WHERE event = ? AND role = ? AND position = ? ORDER BY chunk",
            (self.ids[i], role, position),
        ).fetchall()
        return b"".join(chunk for (chunk,) in chunks) if chunks else None

    def devices(self) -> set[str]:
        """The devices that recorded tensors were on."""
        return {spec.device for spec in self.specs.values()}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _place(self, number: int | None) -> int | None:
        """Index of an event by its id: they differ where events of several threads interleave."""
        if number is None:
            return None
        if self._places is None:
            self._places = {event: i for i, event in enumerate(self.ids)}
        return self._places.get(number)

    def _tensors(self, table: str, number: int) -> tuple[Output, ...]:
        rows = self._connection.execute(
            f"SELECT spec, digest, name FROM {table} WHERE event = ? ORDER BY position", (number,)
        )
        return tuple(Output(self.specs[spec], digest, name or "") for spec, digest, name in rows)

    def _load_signatures(self) -> list[bytes | None]:
        # Numbers of specs are a trace's own; what they stand for is what compares.
        text = {
            number: f"{spec.dtype}{spec.shape}{spec.device}".encode()
            for number, spec in self.specs.items()
        }
        found: dict[int, list[bytes]] = {}
        digested: set[int] = set()
        rows: Iterator[tuple[int, int, bytes | None]] = self._connection.execute(
            "SELECT event, spec, digest FROM output ORDER BY event, position"
        )
        for event, spec, digest in rows:
            parts = found.setdefault(event, [])
            parts.append(text[spec])
            if digest is not None:
                digested.add(event)
                parts.append(digest)
            parts.append(b"|")
        return [b"".join(found[number]) if number in digested else None for number in self.ids]
