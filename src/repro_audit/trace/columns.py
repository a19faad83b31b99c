"""The columns of a trace's events, and a number for what each of them gave, read in bulk."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Mapping
from itertools import chain

import numpy as np
import numpy.typing as npt

from repro_audit.model import TensorSpec

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

# Three integers an event: half the time of its eight columns.
_EVENTS = (
    "SELECT kind | (phase << 4) | (flags << 8) | (thread << 24), (step << 32) | site, call_index "
    "FROM event ORDER BY id"
)
_GOLDEN = 0x9E3779B97F4A7C15


def read_columns(connection: sqlite3.Connection) -> tuple[array[int], list[array[int]]]:
    """Ids, and kind, step, phase, thread, site, call index and flags, of all events in order."""
    extent = "SELECT count(*), min(id), max(id) FROM event"
    count, least, most = connection.execute(extent).fetchone()
    packed = _integers(connection, _EVENTS, count, 3)
    ids = np.arange(count)
    if count and (least, most) != (0, count - 1):
        ids = _integers(connection, "SELECT id FROM event ORDER BY id", count, 1)[:, 0]
    head, place, calls = packed.T
    columns = (
        head & 15,
        place >> 32,
        head >> 4 & 15,
        head >> 24,
        place & 0xFFFFFFFF,
        calls,
        head >> 8 & 0xFFFF,
    )
    return _array(ids), [_array(column) for column in columns]


class Signatures:
    """For each event 16 bytes that are equal for equal outputs, and whether a digest is among them.

    Of an event with one output, its digest and a hash of dtype and shape, added; of several, these
    sums times an odd number for each place. What differs agrees by chance only, in 1 of 2^128.
    """

    def __init__(self, values: U64, present: npt.NDArray[np.bool_]) -> None:
        self.values = values
        self.present = present
        self._bytes = values.tobytes()
        self._known = present.tobytes()

    @classmethod
    def read(
        cls, connection: sqlite3.Connection, ids: array[int], specs: Mapping[int, TensorSpec]
    ) -> Signatures:
        """Those of the events with these ids, ascending."""
        events = np.frombuffer(ids, np.int64)
        values = np.zeros((len(events), 2), np.uint64)
        present = np.zeros(len(events), np.bool_)
        (count,) = connection.execute("SELECT count(*) FROM output").fetchone()
        if not count or not len(events):
            return cls(values, present)
        of, spec, digests, given = _outputs(connection, count)
        first = np.flatnonzero(np.diff(of, prepend=of[0] - 1))
        place = np.arange(count) - np.repeat(first, np.diff(first, append=count))
        rows = (digests + _salts(specs)[spec]) * _weights(place)
        known = np.searchsorted(events, of[first])
        kept = known < len(events)
        kept[kept] = events[known[kept]] == of[first][kept]
        values[known[kept]] = np.add.reduceat(rows, first, axis=0)[kept]
        present[known[kept]] = np.logical_or.reduceat(given, first)[kept]
        return cls(values, present)

    def of(self, at: int) -> bytes | None:
        """Those of event `at`; None where no digest was taken."""
        return self._bytes[16 * at : 16 * at + 16] if self._known[at] else None


def _outputs(
    connection: sqlite3.Connection, count: int
) -> tuple[I64, I64, U64, npt.NDArray[np.bool_]]:
    """Event, spec and digest of each output in order, and whether it has one."""
    of, spec = np.empty(count, np.int64), np.empty(count, np.int64)
    digests = np.zeros((count, 2), np.uint64)
    given = np.empty(count, np.bool_)
    missing = bytes(16)
    cursor = connection.execute("SELECT event, spec, digest FROM output ORDER BY event, position")
    at = 0
    while rows := cursor.fetchmany(8192):
        stretch = slice(at, at + len(rows))
        of[stretch], spec[stretch], taken = zip(*rows, strict=True)
        given[stretch] = [digest is not None for digest in taken]
        joined = b"".join(digest or missing for digest in taken)
        digests[stretch] = np.frombuffer(joined, np.uint64).reshape(-1, 2)
        at += len(rows)
    return of, spec, digests, given


def _salts(specs: Mapping[int, TensorSpec]) -> U64:
    """For each spec by its number a hash of dtype and shape.

    Numbers are a file's own. The device is left out: the same bits are the same wherever they are.
    """
    salts = np.zeros((max(specs, default=0) + 1, 2), np.uint64)
    for number, spec in specs.items():
        text = f"{spec.dtype}{spec.shape}".encode()
        salts[number] = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint64)
    return salts


def _weights(place: I64) -> U64:
    """An odd number for each place among an event's outputs; 1 for the first."""
    number = place.astype(np.uint64) * np.uint64(_GOLDEN)
    number ^= number >> np.uint64(29)
    odd = (number * np.uint64(0xBF58476D1CE4E5B9)) << np.uint64(1) | np.uint64(1)
    return odd[:, np.newaxis]


def _integers(connection: sqlite3.Connection, query: str, count: int, width: int) -> I64:
    flat = chain.from_iterable(connection.execute(query))
    return np.fromiter(flat, np.int64, count * width).reshape(count, width)


def _array(column: I64) -> array[int]:
    found = array("q")
    found.frombytes(np.ascontiguousarray(column).tobytes())
    return found
