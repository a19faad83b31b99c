"""The columns of a trace's events, and a number for what each of them gave, read in bulk."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from repro_audit.model import TensorSpec

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

# SQLite puts many numbers into one text faster than Python takes rows, and without its lock.
# They come in the order of the primary keys, as that is what is scanned.
_EVENTS = (
    "SELECT count(*), max(id), group_concat(id), "
    "group_concat(kind | (phase << 4) | (flags << 8) | (thread << 24)), "
    "group_concat((step << 32) | site), group_concat(call_index) "
    "FROM event WHERE id > :last AND id <= "
    "(SELECT max(id) FROM (SELECT id FROM event WHERE id > :last ORDER BY id LIMIT 65536))"
)
_OUTPUTS = (
    "SELECT count(*), max(event), group_concat(event), group_concat(spec), "
    "group_concat(digest IS NOT NULL), group_concat("
    "CASE WHEN digest IS NULL THEN '00000000000000000000000000000000' ELSE hex(digest) END, '') "
    "FROM output WHERE event > :last AND event <= "
    "(SELECT max(event) FROM "
    "(SELECT event FROM output WHERE event > :last ORDER BY event LIMIT 65536))"
)
_GOLDEN = 0x9E3779B97F4A7C15


def read_columns(connection: sqlite3.Connection) -> tuple[array[int], list[array[int]]]:
    """Ids, and kind, step, phase, thread, site, call index and flags, of all events in order."""
    found = [array("q") for _ in range(8)]
    for count, texts in _stretches(connection, _EVENTS):
        ids, head, place, calls = _numbers(texts, count)
        columns = (
            ids,
            head & 15,
            place >> 32,
            head >> 4 & 15,
            head >> 24,
            place & 0xFFFFFFFF,
            calls,
            head >> 8 & 0xFFFF,
        )
        for column, more in zip(found, columns, strict=True):
            column.frombytes(more.tobytes())
    return found[0], found[1:]


class Signatures:
    """For each event 16 bytes that are equal for equal outputs, and whether a digest is among them.

    Of an event with one output, its digest and a hash of dtype and shape, added; of several, these
    sums times an odd number for each place. What differs agrees by chance only, in 1 of 2^128.
    """

    def __init__(self, values: U64, present: npt.NDArray[np.bool_]) -> None:
        self.values = values
        self.present = present

    @classmethod
    def read(
        cls, connection: sqlite3.Connection, ids: array[int], specs: Mapping[int, TensorSpec]
    ) -> Signatures:
        """Those of the events with these ids, ascending."""
        events = np.frombuffer(ids, np.int64)
        values = np.zeros((len(events), 2), np.uint64)
        present = np.zeros(len(events), np.bool_)
        salts = _salts(specs)
        for count, texts in _stretches(connection, _OUTPUTS):
            of, spec, given = _numbers(texts[:3], count)
            digests = np.frombuffer(bytes.fromhex(texts[3]), np.uint64).reshape(count, 2)
            first = np.flatnonzero(np.diff(of, prepend=of[0] - 1))
            place = np.arange(count) - np.repeat(first, np.diff(first, append=count))
            rows = (digests + salts[spec]) * _weights(place)
            at = np.searchsorted(events, of[first])
            kept = at < len(events)
            kept[kept] = events[at[kept]] == of[first][kept]
            values[at[kept]] = np.add.reduceat(rows, first, axis=0)[kept]
            present[at[kept]] = np.logical_or.reduceat(given != 0, first)[kept]
        return cls(values, present)

    def of(self, at: int) -> bytes | None:
        """Those of event `at`; None where no digest was taken."""
        return self.values[at].tobytes() if self.present[at] else None


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


def _stretches(connection: sqlite3.Connection, query: str) -> Iterator[tuple[int, list[str]]]:
    """How many rows the next stretch has, and the texts that a query makes of it."""
    last = -1
    while (row := connection.execute(query, {"last": last}).fetchone())[0]:
        count, last, *texts = row
        yield count, texts


def _numbers(texts: list[str], count: int) -> I64:
    """The numbers of each text, which must be so many."""
    found = [np.fromstring(text, np.int64, sep=",") for text in texts]
    if any(len(column) != count for column in found):
        raise ValueError("a row without a number")
    return np.array(found)
