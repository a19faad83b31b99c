"""Traces of several processes: late files, their order in time, parts that a kill left."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from repro_audit.errors import TraceError
from repro_audit.trace import Trace, Writer, folder_of, processes_of

Event = tuple[str, int, int | None]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    """A process's trace of events (op, value, time): the program's own, or one beside it."""
    killed: list[Writer] = []

    def write(
        events: Sequence[Event], process: str = "", file: str = "", close: bool = True
    ) -> Writer:
        own = tmp_path / "run-1.sqlite"
        folder_of(own).mkdir(exist_ok=True)
        path = folder_of(own) / f"{file or process}.sqlite" if process else own
        writer = Writer(path, run="run-1", plan={}, process=process, late=bool(process))
        spec = writer.spec("float32", (len(process) + 1,), "cpu")
        for index, (op, value, time) in enumerate(events):
            site = writer.site("", op)
            writer.events.append((index, 0, 0, 3, 0, site, index, None, index - 1 or None, 0))
            writer.outputs.append((index, 0, spec, bytes([value]) * 16, None))
            if time is not None:
                writer.clock.append((index, time))
        if close:
            names = [] if process else [place.stem for place in processes_of(own)]
            closing = {"events": len(events), "processes": names, "rank": len(process)}
            writer.close(manifest={}, closing=closing)
        else:
            writer.flush()
            killed.append(writer)
        return writer

    yield write
    for writer in killed:
        writer.drop()


def ops(trace: Trace) -> list[str]:
    return [trace.site_name(i)[1] for i in range(len(trace))]


def test_events_stand_in_the_order_of_the_clock(member: Callable[..., Writer]) -> None:
    member([("b1", 1, 20), ("b2", 2, 40)], "1")
    member([("c1", 3, 10), ("c2", 4, 30)], "2")
    own = member([("a1", 5, None), ("a2", 6, 15), ("a3", 7, 35)])
    trace = Trace.open(own.path)
    assert ops(trace) == ["a1", "c1", "a2", "b1", "c2", "a3", "b2"]
    assert [trace.owner(i).process for i in range(7)] == ["", "2", "", "1", "2", "", "1"]
    assert [trace.place(i) for i in range(7)] == [0, 0, 1, 0, 1, 2, 1]
    # Numbers of sites, specs and events are each file's own.
    assert trace.event(5).outputs[0].digest == bytes([7]) * 16
    assert trace.event(6).outputs[0].spec.shape == (2,)
    assert [trace.key(i).process for i in (5, 6)] == ["", "1"]
    assert [trace.rank(i) for i in (5, 6)] == [0, 1]
    assert trace.event(5).outputs[0].digest == bytes([7]) * 16
    assert trace.event(5).cause == 2
    trace.close()


def test_the_order_within_a_process_is_its_own(member: Callable[..., Writer]) -> None:
    """Another thread may note its time first."""
    member([("b1", 1, 30), ("b2", 2, 20), ("b3", 3, 40)], "1")
    own = member([("a1", 4, 25), ("a2", 5, 35)])
    assert ops(Trace.open(own.path)) == ["a1", "b1", "b2", "a2", "b3"]


def test_there_is_no_file_before_there_is_an_event(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="r", plan={}, process="1", late=True)
    writer.site("", "aten.mm.default")
    writer.flush()
    assert not writer.begun
    writer.close(manifest={}, closing={"events": 0})
    writer.flush()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_trace_may_get_another_name(tmp_path: Path, begun: bool) -> None:
    writer = Writer(tmp_path / "a", run="r", plan={}, process="1", late=True)
    event = (0, 0, 3, 0, writer.site("", "aten.mm.default"), 0, None, None, 0)
    writer.events.append((0, *event))
    if begun:
        writer.flush()
    writer.rename(tmp_path / "b", "2", "worker-1")
    writer.events.append((1, *event))
    writer.close(manifest={}, closing={"events": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    trace = Trace.open(tmp_path / "b")
    assert (len(trace), trace.owner(1).process, trace.owner(1).name) == (2, "2", "worker-1")


def test_what_is_not_to_be_recorded_is_taken_back(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="r", plan={}, process="1", late=True)
    writer.events.append((0, 0, 0, 3, 0, writer.site("", "op"), 0, None, None, 0))
    writer.flush()
    assert writer.begun
    writer.drop()
    writer.flush()
    writer.close(manifest={}, closing={"events": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_left_a_part(member: Callable[..., Writer]) -> None:
    member([("b1", 1, 10), ("b2", 2, 30)], "1", close=False)
    own = member([("a1", 3, 20)])
    trace = Trace.open(own.path)
    assert ops(trace) == ["b1", "a1", "b2"]
    assert [(file.process, bool(file.closing)) for file in trace.files] == [
        ("", True),
        ("1", False),
    ]
    assert [(thread.process, thread.ended) for thread in trace.threads] == [
        ("", True),
        ("1", False),
    ]


def test_one_killed_at_the_making_of_its_file_left_nothing(member: Callable[..., Writer]) -> None:
    path = member([("b1", 1, 10)], "1", close=False).path
    begun = path.read_bytes()
    own = member([("a1", 3, 20)]).path
    # Before and in the middle of the transaction that makes it: the journal undoes all of it.
    path.write_bytes(b"")
    assert ops(Trace.open(own)) == ["a1"]
    journal = path.with_name(f"{path.name}-journal")
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size=1")
        connection.executescript("BEGIN;PRAGMA user_version=6;CREATE TABLE meta (key TEXT);")
        connection.executemany("INSERT INTO meta VALUES (?)", [("x" * 4096,)] * 64)
        torn, undoes = path.read_bytes(), journal.read_bytes()
    connection.close()
    assert len(torn) > 4096
    path.write_bytes(torn)
    journal.write_bytes(undoes)
    assert ops(Trace.open(own)) == ["a1"]
    journal.unlink()
    path.write_bytes(b"no database at all")
    with pytest.raises(TraceError, match="cannot be read as a trace"):
        Trace.open(own)
    path.write_bytes(begun)
    assert ops(Trace.open(own)) == ["b1", "a1"]


def test_one_killed_before_its_seal_left_a_part(member: Callable[..., Writer]) -> None:
    path = member([("b1", 1, 10)], "1").path
    path.write_bytes(path.read_bytes()[:-24])
    trace = Trace.open(member([("a1", 3, 20)]).path)
    assert trace.files[1].closing == {}


def test_one_that_was_changed_is_refused(member: Callable[..., Writer]) -> None:
    path = member([("b1", 1, 10)], "1").path
    whole = bytearray(path.read_bytes())
    whole[-100] ^= 1
    path.write_bytes(whole)
    own = member([("a1", 3, 20)]).path
    with pytest.raises(TraceError, match=r"1\.sqlite is damaged"):
        Trace.open(own)


def test_one_that_is_missing_is_missed(member: Callable[..., Writer]) -> None:
    path = member([("b1", 1, 10)], "1").path
    own = member([("a1", 3, 20)]).path
    path.unlink()
    with pytest.raises(TraceError, match=r"no 1\.sqlite; a recording of several processes is a"):
        Trace.open(own)


def test_the_processes_of_a_pool_share_a_name(member: Callable[..., Writer]) -> None:
    member([("b1", 1, 10)], "1", file="1+1")
    member([("b2", 2, 30)], "1", file="1+2")
    trace = Trace.open(member([("a1", 3, 20)]).path)
    assert [trace.owner(i).process for i in range(3)] == ["1", "", "1"]


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from repro_audit.trace import Writer
writer = Writer(Path(sys.argv[1]), run="r", plan={})
site = writer.site("", "aten.mm.default")
def fill(start, count):
    for i in range(start, start + count):
        writer.events.append((i, 0, 0, 3, 0, site, i, None, None, 0))
        writer.outputs.append((i, 0, 0, bytes([i % 250]) * 16, None))
writer.spec("float32", (4,), "cpu")
fill(0, 100)
writer.flush()
fill(100, 60000)
# So little memory for pages that the transaction goes to the file long before its end.
writer._connection.execute("PRAGMA cache_size=2")
writer._connection.execute("PRAGMA cache_spill=1")
count = 0
def progress():
    global count
    count += 1
    if count == 400: os.kill(os.getpid(), signal.SIGKILL)
writer._connection.set_progress_handler(progress, 1000)
writer.flush()
"""


def test_a_kill_in_the_middle_of_a_transaction_leaves_a_readable_prefix(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    journal = tmp_path / "a.sqlite-journal"
    before = path.read_bytes(), journal.read_bytes()
    assert len(before[0]) > 200_000, "it was killed before anything of the transaction was written"
    trace = Trace.open(path, partial=True)
    assert len(trace) == 100
    assert trace.signature(99) is not None
    trace.close()
    # What a read needs to undo it undoes in a copy.
    assert (path.read_bytes(), journal.read_bytes()) == before
    with pytest.raises(TraceError):
        Trace.open(path)


def test_two_processes_do_not_take_one_name(tmp_path: Path) -> None:
    writers = [Writer(tmp_path / "a", run="r", plan={}, process="1", late=True) for _ in range(2)]
    for writer in writers:
        writer.events.append((0, 0, 0, 3, 0, writer.site("", "op"), 0, None, None, 0))
    writers[0].flush()
    with pytest.raises(FileExistsError):
        writers[1].flush()
    writers[0].close(manifest={}, closing={"events": 1})
    assert len(Trace.open(tmp_path / "a")) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_finds_nobody_in_the_middle_of_writing(tmp_path: Path) -> None:
    """A lock of SQLite's that another thread held at the fork would never be released."""
    forks = 200
    writer = Writer(tmp_path / "a", run="r", plan={})
    row = (0, 0, 3, 0, writer.site("", "op"), 0, None, None, 0)
    done, numbers = threading.Event(), itertools.count()

    def write() -> None:
        while not done.is_set():
            writer.events += [(next(numbers), *row) for _ in range(100)]
            writer.flush()

    threads = [threading.Thread(target=write, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    ended = []
    for number in range(forks):
        writer.hold()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            writer.discard_connection()
            own = Writer(tmp_path / str(number), run="r", plan={}, process="1", late=True)
            own.site("", "op")
            own.events.append((0, *row))
            own.close(manifest={}, closing={"events": 1})
            os._exit(0)
        writer.release()
        ended.append(os.waitpid(child, 0)[1])
        if ended[-1]:
            break
    done.set()
    for thread in threads:
        thread.join()
    assert ended == [0] * forks
    writer.close(manifest={}, closing={"events": next(numbers)})
    assert len(Trace.open(tmp_path / str(forks - 1))) == 1
