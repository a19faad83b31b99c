"""Writes a trace while the audited program runs: rows in batches, the closing record last."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro_audit.errors import TraceError
from repro_audit.trace import seal
from repro_audit.trace.schema import APPLICATION_ID, CHUNK, DDL, SCHEMA, VERSION

Row = tuple[Any, ...]


class Writer:
    """A trace being written. `events`, `outputs` and `inputs` take rows as the schema has them.

    Rows are appended to the lists by capture and written by `flush`, which clears them in place;
    in one transaction. The file is not a trace until `close`: a reader refuses it before. Numbers,
    `payload` and `flush` may be used from several threads. Raises TraceError where `path` exists
    or cannot be written, be it later on: a full disk.
    """

    def __init__(self, path: Path, *, run: str, plan: Mapping[str, Any]) -> None:
        self.events: list[Row] = []
        self.outputs: list[Row] = []
        self.inputs: list[Row] = []
        self._sites: dict[tuple[str, str], int] = {}
        self._codes: dict[str, int] = {}
        self._specs: dict[tuple[str, tuple[int, ...], str], int] = {}
        self._new: list[tuple[str, Row]] = []
        self._lock = threading.RLock()
        # The program may change its directory before the file is sealed.
        self._path = path.absolute()
        if path.exists():
            raise TraceError(f"{path} exists already; a trace never overwrites one")
        try:
            self._connection: sqlite3.Connection | None = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            # A crash of the machine may lose the file: it has no closing record then.
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version={VERSION}")
            self._connection.executescript(f"BEGIN;{DDL}COMMIT;")
            self._put({"schema": SCHEMA, "run": run, "plan": _json(plan)})
        except sqlite3.Error as error:
            raise TraceError(f"cannot write the trace {path}: {error}") from error

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""
        number = self._sites.get((module, op))
        if number is None:
            insert = "INSERT INTO site VALUES (?,?,?)"
            number = self._number(self._sites, (module, op), insert, (module, op))
        return number

    def code(self, location: str) -> int:
        """Number of a call site, `path:line`."""
        number = self._codes.get(location)
        if number is None:
            insert = "INSERT INTO code VALUES (?,?)"
            number = self._number(self._codes, location, insert, (location,))
        return number

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """Number of a tensor's dtype, shape and device."""
        number = self._specs.get((dtype, shape, device))
        if number is None:
            insert, row = "INSERT INTO spec VALUES (?,?,?,?)", (dtype, json.dumps(shape), device)
            number = self._number(self._specs, (dtype, shape, device), insert, row)
        return number

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """Keep a tensor's bytes (role 0 input, 1 output); `view` is read before this returns."""
        with self._lock:
            # An empty tensor has one empty chunk: kept, and not the same as not kept.
            for chunk, at in enumerate(range(0, max(len(view), 1), CHUNK)):
                self._execute(
                    "INSERT INTO payload VALUES (?,?,?,?,?)",
                    [(event, role, position, chunk, view[at : at + CHUNK])],
                )

    def flush(self) -> None:
        """Write the rows gathered so far in one transaction."""
        with self._lock:
            if self._connection is None:
                return
            # Rows that another thread appends meanwhile stay for the next flush.
            taken = [(rows, len(rows)) for rows in (self.events, self.outputs, self.inputs)]
            numbered = len(self._new)
            with self._transaction() as connection:
                for statement, row in self._new[:numbered]:
                    connection.execute(statement, row)
                for (rows, count), table, columns in zip(
                    taken, ("event", "output", "input"), (10, 5, 5), strict=True
                ):
                    marks = ",".join("?" * columns)
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[:count])
            del self._new[:numbered]
            for rows, count in taken:
                del rows[:count]

    def close(self, *, manifest: Mapping[str, Any], closing: Mapping[str, Any]) -> None:
        """Write what is left, the manifest, the closing record and, last, the seal."""
        with self._lock:
            if self._connection is None:
                return
            self.flush()
            self._put({"manifest": _json(manifest)})
            self._put({"closing": _json(closing)})
            self._connection.close()
            self._connection = None
            try:
                seal.seal(self._path)
            except OSError as error:
                raise TraceError(f"cannot write the trace {self._path}: {error}") from error

    def discard_connection(self) -> None:
        """Forget the file without touching it: for a forked child, whose parent owns it.

        SQLite's own close would drop the parent's locks, so the connection is never closed.
        """
        _leaked.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

    def _number(self, numbers: dict[Any, int], name: Any, insert: str, row: Row) -> int:
        """A new number; its row is queued before any event can refer to it."""
        with self._lock:
            number = numbers.get(name)
            if number is None:
                number = len(numbers)
                self._new.append((insert, (number, *row)))
                numbers[name] = number
            return number

    def _put(self, items: Mapping[str, str]) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?,?)", list(items.items()))

    def _execute(self, statement: str, rows: list[Any]) -> None:
        if self._connection is not None:
            with self._transaction() as connection:
                connection.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: what fails leaves the rows to be written again, or never."""
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise TraceError(f"cannot write the trace {self._path}: {error}") from error


_leaked: list[sqlite3.Connection | None] = []


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
