"""Writes a trace while the audited program runs: rows in batches, the closing record last."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro_audit.errors import TraceError
from repro_audit.model import Json
from repro_audit.model.codes import INPUTS
from repro_audit.trace import seal
from repro_audit.trace.schema import APPLICATION_ID, CHUNK, DDL, OUTPUT, SCHEMA, VERSION

Row = tuple[Any, ...]


class Writer:
    """A trace being written. The lists `events`, `outputs` and so on take rows of the schema.

    Rows are appended to the lists by capture and written by `flush`, which clears them in place;
    in one transaction. The file is not a trace until `close`: a reader refuses it before. Numbers,
    `payload` and `flush` may be used from several threads. `process` and `main` name the process
    and its main thread. With `late` there is no file before there is something to put into it.
    Raises TraceError where `path` exists or cannot be written, be it later on: a full disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        run: str,
        plan: Mapping[str, Any],
        process: str = "",
        main: str = "",
        late: bool = False,
    ) -> None:
        self.events: list[Row] = []
        self.outputs: list[Row] = []
        self.inputs: list[Row] = []
        self.clock: list[Row] = []
        self.samples: list[Row] = []
        self.reductions: list[Row] = []
        self.measured: list[Row] = []
        self._sites: dict[tuple[str, str], int] = {}
        self._codes: dict[tuple[str, str | None], int] = {}
        self._specs: dict[tuple[str, tuple[int, ...], str], int] = {}
        self._threads = 1
        self._new: list[tuple[str, Row]] = []
        self._ended: list[Row] = []
        # Payloads that are not in the file yet, their bytes, and those to be taken out of it.
        self._small: dict[tuple[int, int, int], bytes] = {}
        self._waiting = 0
        self._gone: list[Row] = []
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._meta = {"schema": SCHEMA, "run": run, "process": process, "plan": _json(plan)}
        # The program may change its directory before the file is opened, or sealed.
        self.path = path.absolute()
        self._main = main
        self._forgotten = False
        if not late:
            try:
                self._open()
            except FileExistsError as error:
                raise TraceError(f"{path} exists already; a trace never overwrites one") from error
            except OSError as error:
                raise self._error(error) from error

    def rename(self, path: Path, process: str, main: str | None = None) -> None:
        """Be the trace of `process` at `path`."""
        with self._lock:
            moved = self._connection
            if moved is not None:
                moved.close()
                self.path.rename(path)
                self._connection = self._connected(path)
            self.path = path.absolute()
            self._meta["process"] = process
            self._main = self._main if main is None else main
            if moved is not None:
                self._put(self._meta)
                self._execute("UPDATE thread SET name = ? WHERE id = 0", [(self._main,)])

    @property
    def begun(self) -> bool:
        """True once there is a file."""
        return self._connection is not None

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""
        number = self._sites.get((module, op))
        if number is None:
            insert = "INSERT INTO site VALUES (?,?,?)"
            row = _text(module), _text(op)
            number = self._number(self._sites, (module, op), insert, row)
        return number

    def code(self, location: str, called_from: str | None = None) -> int:
        """Number of a call site, `path:line`, and the program's line that called it, if another."""
        number = self._codes.get((location, called_from))
        if number is None:
            insert = "INSERT INTO code VALUES (?,?,?)"
            row = _text(location), None if called_from is None else _text(called_from)
            number = self._number(self._codes, (location, called_from), insert, row)
        return number

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """Number of a tensor's dtype, shape and device."""
        number = self._specs.get((dtype, shape, device))
        if number is None:
            insert, row = "INSERT INTO spec VALUES (?,?,?,?)", (dtype, json.dumps(shape), device)
            number = self._number(self._specs, (dtype, shape, device), insert, row)
        return number

    def thread(self, name: str) -> int:
        """A number for a thread that begins; `end` tells that it has ended."""
        with self._lock:
            number = self._threads
            self._threads += 1
            self._new.append(("INSERT INTO thread VALUES (?,?,0)", (number, name)))
            return number

    def end(self, thread: int) -> None:
        """Note that a thread has come to its end: all that it did has been appended."""
        with self._lock:
            self._ended.append((thread,))

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """Keep bytes of an event, of a role that the schema knows; `view` is read at once."""
        with self._lock:
            if len(view) <= _SMALL:
                # Of an empty tensor one empty chunk: kept, and not the same as not kept.
                self._small[event, role, position] = bytes(view)
                self._waiting += len(view)
                if self._waiting > _TOGETHER:
                    self._settle()
                return
            # Room that was given up is used again.
            self._settle()
            for chunk, at in enumerate(range(0, len(view), CHUNK)):
                row = (event, role, position, chunk, view[at : at + CHUNK])
                self._execute(_PAYLOAD, [row])

    def unkeep(self, event: int, position: int) -> None:
        """Let an output's bytes go again."""
        with self._lock:
            place = (event, OUTPUT, position)
            data = self._small.pop(place, None)
            if data is None:
                self._gone.append(place)
            else:
                self._waiting -= len(data)

    def call(self, event: int, call: Json) -> None:
        """Keep the description of an operator's call."""
        with self._lock:
            self._execute("INSERT INTO call VALUES (?,?)", [(event, _json(call))])

    def attend(self, event: int) -> None:
        """Note that the inputs of an event, already written, are kept."""
        with self._lock:
            self.flush()
            self._execute(f"UPDATE event SET flags = flags | {INPUTS} WHERE id = ?", [(event,)])

    def cut_off(self, last: Mapping[int, int]) -> int:
        """Take back what comes after the last event of each thread; how many events are left."""
        with self._lock:
            self.flush()
            with self._transaction() as connection:
                for thread, event in last.items():
                    later = "DELETE FROM event WHERE thread = ? AND id > ?"
                    connection.execute(later, (thread, event))
                for table in ("output", "input", "call", "payload", "clock", "sample"):
                    gone = f"DELETE FROM {table} WHERE event NOT IN (SELECT id FROM event)"
                    connection.execute(gone)
                (left,) = connection.execute("SELECT count(*) FROM event").fetchone()
            return int(left)

    def flush(self) -> None:
        """Write the rows gathered so far in one transaction."""
        with self._lock:
            if self._forgotten or (self._connection is None and not self.events):
                return
            # Rows that another thread appends meanwhile stay for the next flush. A thread that has
            # ended before they are counted has all of its own among them.
            ended = len(self._ended)
            taken = [(rows, len(rows)) for rows in self._lists()]
            numbered = len(self._new)
            with self._transaction() as connection:
                self._payloads(connection)
                for statement, row in self._new[:numbered]:
                    connection.execute(statement, row)
                for (rows, count), (table, columns) in zip(taken, _TABLES, strict=True):
                    marks = ",".join("?" * columns)
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[:count])
                connection.executemany(_END, self._ended[:ended])
            self._settled()
            del self._new[:numbered]
            del self._ended[:ended]
            for rows, count in taken:
                del rows[:count]

    def close(
        self, *, manifest: Mapping[str, Any], closing: Mapping[str, Any], cut: bool = False
    ) -> None:
        """Write what is left, the manifest, the closing record and, last, the seal.

        `cut` says that the main thread did not come to its end.
        """
        with self._lock:
            if self._connection is None and not self.events:
                self._forgotten = True
            if self._forgotten:
                return
            self.flush()
            with self._transaction() as connection:
                connection.executemany(_END, [] if cut else [(0,)])
            self._put({"manifest": _json(manifest)})
            self._put({"closing": _json(closing)})
            connection.close()
            self._connection = None
            self._forgotten = True
            try:
                seal.seal(self.path)
            except OSError as error:
                raise self._error(error) from error

    def hold(self) -> None:
        """Before a fork: let no other thread be in the middle of writing."""
        self._lock.acquire()

    def release(self) -> None:
        """After a fork, in the parent."""
        self._lock.release()

    def drop(self) -> None:
        """Take back what was written: it is not to be recorded."""
        with self._lock:
            self._forgotten = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self.path.unlink(missing_ok=True)

    def discard_connection(self) -> None:
        """Forget the file without touching it: for a forked child, whose parent owns it.

        SQLite's own close would drop the parent's locks, so the connection is never closed: not
        even when the interpreter ends, which from 3.13 on warns of it, too.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._connection = None
        self._forgotten = True
        self._lock = threading.RLock()

    def _open(self) -> sqlite3.Connection:
        """Make the file. Raises FileExistsError, OSError or TraceError."""
        # Two processes may be about to take the same name.
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        try:
            connection = self._connected(self.path)
            # All at once: of a process that is killed here the file is empty, or a trace.
            head = f"PRAGMA application_id={APPLICATION_ID};PRAGMA user_version={VERSION};"
            connection.executescript(f"BEGIN;{head}{DDL}")
            connection.executemany(_META, self._meta.items())
            connection.execute("INSERT INTO thread VALUES (0,?,0)", (self._main,))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._error(error) from error
        self._connection = connection
        return connection

    @staticmethod
    def _connected(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A crash of the machine may lose the file: it has no closing record then.
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    def _lists(self) -> tuple[list[Row], ...]:
        own = self.events, self.outputs, self.inputs, self.clock
        return (*own, self.samples, self.reductions, self.measured)

    def _number(self, numbers: dict[Any, int], name: Any, insert: str, row: Row) -> int:
        """A new number; its row is queued before any event can refer to it."""
        with self._lock:
            number = numbers.get(name)
            if number is None:
                number = len(numbers)
                self._new.append((insert, (number, *row)))
                numbers[name] = number
            return number

    def _settle(self) -> None:
        """Bring the file's payloads up to date."""
        if not self._forgotten and (self._small or self._gone):
            with self._transaction() as connection:
                self._payloads(connection)
        self._settled()

    def _payloads(self, connection: sqlite3.Connection) -> None:
        connection.executemany(_UNKEEP, self._gone)
        connection.executemany(_PAYLOAD, ((*at, 0, data) for at, data in self._small.items()))

    def _settled(self) -> None:
        self._small.clear()
        self._gone.clear()
        self._waiting = 0

    def _put(self, items: Mapping[str, str]) -> None:
        self._execute(_META, list(items.items()))

    def _execute(self, statement: str, rows: list[Any]) -> None:
        if not self._forgotten:
            with self._transaction() as connection:
                connection.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: what fails leaves the rows to be written again, or never."""
        connection = self._connection or self._open()
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise self._error(error) from error

    def _error(self, error: Exception) -> TraceError:
        return TraceError(f"cannot write the trace {self.path}: {error}")


# Tables that rows are gathered for, in the order of the lists, and how many columns they have.
_TABLES = (
    ("event", 10),
    ("output", 5),
    ("input", 5),
    ("clock", 2),
    ("sample", 3),
    ("reduction", 3),
    ("measured", 4),
)
_META = "INSERT OR REPLACE INTO meta VALUES (?,?)"
_PAYLOAD = "INSERT INTO payload VALUES (?,?,?,?,?)"
_UNKEEP = "DELETE FROM payload WHERE event = ? AND role = ? AND position = ?"
# Payloads up to this size are written together, once they have so many bytes.
_SMALL, _TOGETHER = 64 << 10, 4 << 20
_END = "UPDATE thread SET ended = 1 WHERE id = ?"


def _json(value: Mapping[str, Any]) -> str:
    # What is no UTF-8 (see `_text`) is escaped, and comes back as it was.
    return json.dumps(value, sort_keys=True)


def _text(said: str) -> str:
    """Text that SQLite takes: names of files that are no UTF-8 have lone surrogates."""
    return said.encode("utf-8", "backslashreplace").decode()
