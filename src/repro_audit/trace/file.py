"""One trace file, read: what a process of a run did."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import weakref
from bisect import bisect_left
from pathlib import Path
from typing import Any

from repro_audit.errors import TraceError
from repro_audit.model import Json, Output, TensorSpec
from repro_audit.trace import seal
from repro_audit.trace.columns import Signatures, read_columns
from repro_audit.trace.schema import APPLICATION_ID, OUTPUT, VERSION

_AGAIN = "run or record the program again"


class TraceFile:
    """The contents of one file; `columns` are the arrays of `Trace`, its own numbers in them.

    `threads` has (name, ended) by number. `clock` has the time of the events that have one.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        # From 3.13 on Python warns of a connection that nobody closed.
        self._close = weakref.finalize(self, connection.close)
        self.meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
        self.process = self.meta.get("process", "")
        self.closing: dict[str, Any] = json.loads(self.meta.get("closing", "{}"))
        self.sites: dict[int, tuple[str, str]] = {
            number: (module, op)
            for number, module, op in connection.execute("SELECT id, module, op FROM site")
        }
        self.specs: dict[int, TensorSpec] = {
            number: TensorSpec(dtype, tuple(json.loads(shape)), device)
            for number, dtype, shape, device in connection.execute("SELECT * FROM spec")
        }
        self.threads: dict[int, tuple[str, bool]] = {
            number: (name, bool(ended))
            for number, name, ended in connection.execute("SELECT id, name, ended FROM thread")
        }
        self.ids, self.columns = read_columns(connection)
        if not (
            set(self.columns[3]) <= set(self.threads) and set(self.columns[4]) <= set(self.sites)
        ):
            raise LookupError("an event of a thread or site that is not there")
        self.reductions: dict[tuple[tuple[str, str], TensorSpec], int] = {
            (self.sites[site], self.specs[spec]): length
            for site, spec, length in connection.execute("SELECT * FROM reduction")
        }
        self.clock: dict[int, int] = dict(connection.execute("SELECT event, ns FROM clock"))

    @classmethod
    def open(cls, path: Path, *, partial: bool) -> TraceFile:
        """Open a file; one without its closing record only if `partial`.

        Raises TraceError for a missing, truncated, altered, foreign or unknown file, naming the
        way out. Reads the file once to check its seal, which a `partial` one need not have.
        """
        if not path.is_file():
            raise TraceError(f"no trace at {path}; `repro-audit record TARGET -o FILE` makes one")
        connection: sqlite3.Connection | None = None
        found: TraceFile | None = None
        try:
            connection = _connected(path, partial=partial)
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
            if not partial and loaded.closing.get("events") != len(loaded.ids):
                raise TraceError(
                    f"{path} is damaged: {len(loaded.ids)} events, "
                    f"{loaded.closing.get('events')} were written; {_AGAIN}"
                )
            found = loaded
        except (sqlite3.Error, OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise TraceError(f"{path} cannot be read as a trace: {error}; {_AGAIN}") from error
        finally:
            if found is None and connection is not None:
                connection.close()
        return found

    def close(self) -> None:
        """Close the file."""
        self._close()

    def place(self, number: int | None) -> int | None:
        """Place of an event by its id: they differ where events of several threads interleave."""
        if number is None:
            return None
        at = bisect_left(self.ids, number)
        return at if at < len(self.ids) and self.ids[at] == number else None

    def source(self, number: int) -> tuple[str | None, str | None, int | None]:
        """(call site, where it is called from, id of the forward event) of the event of this id."""
        code, caller, cause = self._connection.execute(
            "SELECT location, called_from, cause FROM event LEFT JOIN code ON code.id = event.code "
            "WHERE event.id = ?",
            (number,),
        ).fetchone()
        return code, caller, cause

    def marks(self, first: int, last: int) -> dict[int, tuple[str | None, TensorSpec | None]]:
        """(line, what its first output is) of the events between two ids, both included."""
        rows = self._connection.execute(
            "SELECT event.id, location || coalesce(' ' || called_from, ''), output.spec FROM event "
            "LEFT JOIN code ON code.id = event.code "
            "LEFT JOIN output ON output.event = event.id AND output.position = 0 "
            "WHERE event.id BETWEEN ? AND ?",
            (first, last),
        )
        return {
            number: (code, None if spec is None else self.specs[spec])
            for number, code, spec in rows
        }

    def tensors(self, table: str, number: int) -> tuple[Output, ...]:
        """The outputs or inputs of the event with this id."""
        rows = self._connection.execute(
            f"SELECT spec, digest, name FROM {table} WHERE event = ? ORDER BY position", (number,)
        )
        return tuple(Output(self.specs[spec], digest, name or "") for spec, digest, name in rows)

    def maker(self, digest: bytes, before: int) -> int | None:
        """Place of the last event before the one with this id that gave such bits."""
        made = "SELECT max(event) FROM output WHERE digest = ? AND event < ?"
        (number,) = self._connection.execute(made, (digest, before)).fetchone()
        return self.place(number)

    def payload(self, number: int, role: int, position: int) -> bytes | None:
        """The kept bytes of an event, or None; the schema knows the roles."""
        chunks = self._connection.execute(
            "SELECT data FROM payload WHERE event = ? AND role = ? AND position = ? ORDER BY chunk",
            (number, role, position),
        ).fetchall()
        return b"".join(chunk for (chunk,) in chunks) if chunks else None

    def samples(self, number: int) -> dict[int, bytes]:
        """The sampled elements of the event with this id, by output."""
        taken = "SELECT position, data FROM sample WHERE event = ?"
        return dict(self._connection.execute(taken, (number,)))

    def measured(self, number: int) -> dict[tuple[int, int], Json]:
        """What was measured of the event with this id, by output and what it was compared with."""
        rows = self._connection.execute(
            "SELECT position, against, figures FROM measured WHERE event = ?", (number,)
        )
        return {(position, against): json.loads(figures) for position, against, figures in rows}

    def kept(self) -> list[int]:
        """The places of the events of which outputs were kept whole."""
        kept = f"SELECT DISTINCT event FROM payload WHERE role = {OUTPUT}"
        places = [self.place(event) for (event,) in self._connection.execute(kept)]
        return [place for place in places if place is not None]

    def call(self, number: int) -> Json | None:
        """The description of an operator's call, where it was kept."""
        row = self._connection.execute("SELECT call FROM call WHERE event = ?", (number,))
        found = row.fetchone()
        return None if found is None else json.loads(found[0])

    def signatures(self) -> Signatures:
        """For each event, bytes that are equal for equal outputs."""
        return Signatures.read(self._connection, self.ids, self.specs)


def is_empty(path: Path) -> bool:
    """True of a file that a process was killed at the making of: it had not recorded anything.

    Raises TraceError for what is no database.
    """
    if not path.stat().st_size:
        return True
    try:
        with contextlib.closing(_connected(path, partial=True)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.Error as error:
        raise TraceError(f"{path} cannot be read as a trace: {error}; {_AGAIN}") from error
    return not tables


def _connected(path: Path, *, partial: bool) -> sqlite3.Connection:
    """A connection that writes nothing.

    A process killed in the middle of a transaction leaves a journal that undoes it, which SQLite
    must apply before it reads: to a copy.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not (partial and journal.is_file()):
        # Read by one thread at a time, not always the same.
        uri = f"{path.resolve().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory(prefix="repro-audit-") as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(journal, copy.with_name(journal.name))
        with contextlib.closing(sqlite3.connect(copy)) as undone:
            undone.backup(connection)
    return connection
