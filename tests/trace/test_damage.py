"""A file that is not wholly a trace is refused, and can never look like an identical run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_audit.errors import EXIT_INCONCLUSIVE, TraceError
from repro_audit.trace import Trace, Writer
from repro_audit.trace.schema import APPLICATION_ID, VERSION

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(TraceError, match=match) as caught:
        Trace.open(path)
    assert caught.value.exit_code == EXIT_INCONCLUSIVE


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.audit", "no trace at .*repro-audit record")
    refused(tmp_path, "no trace at")


def test_a_run_that_did_not_end(written: Callable[..., Path]) -> None:
    path = written(close=False)
    refused(path, "no closing record")
    trace = Trace.open(path, partial=True)
    assert (len(trace), trace.closing, trace.signature(29) is not None) == (30, {}, True)


def test_a_closing_record_without_its_seal(written: Callable[..., Path]) -> None:
    """The process ended between the two."""
    path = written()
    path.write_bytes(path.read_bytes()[:-24])
    refused(path, "damaged")


def test_cut_anywhere(written: Callable[..., Path], tmp_path: Path) -> None:
    whole, cut = written().read_bytes(), tmp_path / "cut.audit"
    for length in {*range(0, len(whole), 61), *range(len(whole) - 60, len(whole))}:
        cut.write_bytes(whole[:length])
        refused(cut)


def test_more_than_was_written(written: Callable[..., Path]) -> None:
    path = written()
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "damaged")


@SHARED
@given(place=st.integers(0, 1 << 30), bit=st.integers(0, 7), held=st.booleans())
def test_any_flipped_bit_is_seen(
    written: Callable[..., Path], tmp_path: Path, place: int, bit: int, held: bool
) -> None:
    """SQLite's own check misses those in contents: a digest gone is a divergence hidden."""
    whole, flipped = tmp_path / "whole.audit", tmp_path / "flipped.audit"
    raw = bytearray((whole if whole.exists() else written(whole.name, odd=29)).read_bytes())
    # Half of the draws in bytes that hold something: most of a small database is empty pages.
    places = [at for at, byte in enumerate(raw) if byte] if held else range(len(raw))
    raw[places[place % len(places)]] ^= 1 << bit
    flipped.write_bytes(raw)
    refused(flipped)


def test_a_row_changed_with_sqlite(written: Callable[..., Path]) -> None:
    path = written(odd=29)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE output SET digest = NULL WHERE event = 29")
    connection.commit()
    connection.close()
    refused(path, "damaged")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"SQLite format 3\0",
        b"PK\x03\x04" + bytes(5000),
        b"{}",
        b"SQLite format 3\0" * 999,
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path)


def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE event (id INTEGER)")
    connection.commit()
    connection.close()
    refused(path, "not a repro-audit trace")


@pytest.mark.parametrize("version", [0, VERSION + 1, 2**31 - 1])
def test_another_version(written: Callable[..., Path], version: int) -> None:
    path = written()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    refused(path, f"trace version {version}")


def test_a_database_with_our_number_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.audit"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.close()
    refused(path, "cannot be read as a trace")


@pytest.mark.parametrize("events", [29, 31, None, "30"])
def test_a_closing_record_that_counts_otherwise(tmp_path: Path, events: object) -> None:
    writer = Writer(tmp_path / "a", run="a", plan={})
    site = writer.site("", "aten.mm.default")
    writer.events.extend((i, 0, 0, 3, 0, site, i, None, None, 0) for i in range(30))
    writer.close(manifest={}, closing={"events": events})
    refused(tmp_path / "a", "30 events")


def test_reading_changes_nothing(written: Callable[..., Path]) -> None:
    path = written()
    before = path.read_bytes()
    trace = Trace.open(path)
    trace.signature(3)
    trace.close()
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name", ["a b.audit", "100%.audit", "q?mode=rw.audit", "#1.audit", "ü.audit"]
)
def test_names_of_files(written: Callable[..., Path], name: str) -> None:
    assert len(Trace.open(written(name))) == 30
