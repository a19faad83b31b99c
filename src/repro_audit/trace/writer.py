"""Writes a trace while the audited program runs: rows in batches, the closing record last."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_audit.errors import TraceError
from repro_audit.trace.schema import APPLICATION_ID, CHUNK, DDL, SCHEMA, VERSION

Row = tuple[Any, ...]


class Writer:
    """A trace being written. `events`, `outputs` and `inputs` take rows as the schema has them.

    Rows are appended to the lists by capture and written by `flush`, which clears them in place;
    about 1 µs a row. The file is not a trace until `close`: a reader refuses it before. Raises
    TraceError where `path` exists or cannot be written.
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
        number = self._sites.setdefault((module, op), len(self._sites))
        if number == len(self._sites) - 1:
            self._new.append(("INSERT OR IGNORE INTO site VALUES (?,?,?)", (number, module, op)))
        return number

    def code(self, location: str) -> int:
        """Number of a call site, `path:line`."""
        number = self._codes.setdefault(location, len(self._codes))
        if number == len(self._codes) - 1:
            self._new.append(("INSERT OR IGNORE INTO code VALUES (?,?)", (number, location)))
        return number

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """Number of a tensor's dtype, shape and device."""
        number = self._specs.setdefault((dtype, shape, device), len(self._specs))
        if number == len(self._specs) - 1:
            row = (number, dtype, json.dumps(shape), device)
            self._new.append(("INSERT OR IGNORE INTO spec VALUES (?,?,?,?)", row))
        return number

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """Keep a tensor's bytes (role 0 input, 1 output); `view` is read before this returns."""
        with self._lock:
            for chunk, at in enumerate(range(0, len(view), CHUNK)):
                self._execute(
                    "INSERT INTO payload VALUES (?,?,?,?,?)",
                    [(event, role, position, chunk, view[at : at + CHUNK])],
                )

    def flush(self) -> None:
        """Write the rows gathered so far in one transaction."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return
            new, self._new = self._new, []
            # Rows that another thread appends meanwhile stay for the next flush.
            taken = [(rows, len(rows)) for rows in (self.events, self.outputs, self.inputs)]
            connection.execute("BEGIN")
            for statement, row in new:
                connection.execute(statement, row)
            for (rows, count), table, columns in zip(
                taken, ("event", "output", "input"), (10, 5, 5), strict=True
            ):
                marks = ",".join("?" * columns)
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[:count])
                del rows[:count]
            connection.execute("COMMIT")

    def close(self, *, manifest: Mapping[str, Any], closing: Mapping[str, Any]) -> None:
        """Write what is left, the manifest and, last, the closing record."""
        with self._lock:
            self.flush()
            self._put({"manifest": _json(manifest)})
            self._put({"closing": _json(closing)})
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def discard_connection(self) -> None:
        """Forget the file without touching it: for a forked child, whose parent owns it.

        SQLite's own close would drop the parent's locks, so the connection is never closed.
        """
        _leaked.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

    def _put(self, items: Mapping[str, str]) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?,?)", list(items.items()))

    def _execute(self, statement: str, rows: list[Any]) -> None:
        if self._connection is not None:
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")


_leaked: list[sqlite3.Connection | None] = []


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
