"""What is written is what is read: rows, numbers, tensors kept, from threads and across a fork."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from repro_audit.errors import TraceError
from repro_audit.model import Event, Output, SiteKey, TensorSpec
from repro_audit.model.codes import RANDOM, RECOMPUTE, TAINTED
from repro_audit.trace import Trace, Writer
from repro_audit.trace.schema import CHUNK


def test_every_column_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run-1.audit"
    writer = Writer(path, run="run-1", plan={"seed": 0})
    forward = writer.site("h.0", "aten.mm.default")
    backward = writer.site("h.0", "aten.mm.out")
    weights = writer.site("h.0", "param:weight")
    code = writer.code("modèle.py:7")
    spec = writer.spec("bfloat16", (2, 3), "cuda:1")
    scalar = writer.spec("int64", (), "cpu")
    assert writer.thread("1.2") == 1
    writer.end(1)
    writer.events.append((0, 1, 0, 2, 0, weights, 0, None, None, 0))
    writer.events.append((1, 0, 0, 3, 0, forward, 0, code, None, TAINTED | RANDOM))
    writer.events.append((2, 0, 0, 4, 1, backward, 5, None, 1, RECOMPUTE))
    writer.outputs.append((0, 0, spec, b"w" * 16, "weight"))
    writer.outputs.append((1, 0, spec, None, None))
    writer.outputs.append((2, 1, scalar, b"q" * 16, None))
    writer.outputs.append((2, 0, spec, b"p" * 16, None))
    writer.inputs.append((2, 0, scalar, b"i" * 16, None))
    writer.close(manifest={"threads": 2}, closing={"events": 3, "steps": 1, "outcome": "finished"})

    trace = Trace.open(path)
    matrix, number = TensorSpec("bfloat16", (2, 3), "cuda:1"), TensorSpec("int64", (), "cpu")
    assert (len(trace), trace.run, trace.plan, trace.manifest) == (
        3,
        "run-1",
        {"seed": 0},
        {"threads": 2},
    )
    assert trace.closing == {"events": 3, "steps": 1, "outcome": "finished"}
    assert trace.event(0) == Event(
        index=0,
        kind="param",
        key=SiteKey(0, "weights", "h.0", "param:weight", 0),
        call_site=None,
        cause=None,
        outputs=(Output(matrix, b"w" * 16, "weight"),),
    )
    assert trace.event(1) == Event(
        index=1,
        kind="op",
        key=SiteKey(0, "forward", "h.0", "aten.mm.default", 0),
        call_site="modèle.py:7",
        cause=None,
        outputs=(Output(matrix, None),),
        tainted=True,
        random=True,
    )
    assert trace.event(2) == Event(
        index=2,
        kind="op",
        key=SiteKey(0, "backward", "h.0", "aten.mm.out", 5, "1.2"),
        call_site=None,
        cause=1,
        outputs=(Output(matrix, b"p" * 16), Output(number, b"q" * 16)),
        inputs=(Output(number, b"i" * 16),),
        recompute=True,
    )
    assert trace.key(2) == trace.event(2).key
    assert trace.site_name(1) == ("h.0", "aten.mm.default")
    assert trace.signature(1) is None
    assert trace.signature(2) is not None
    assert trace.devices() == {"cuda:1", "cpu"}


def test_a_sealed_trace_is_an_ordinary_database(written: Callable[..., Path]) -> None:
    connection = sqlite3.connect(written())
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (30,)
    connection.close()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"dtype": "float16"}, id="dtype"),
        pytest.param({"shape": (2, 2)}, id="shape"),
        pytest.param({"digest": b"y" * 16}, id="digest"),
        pytest.param({"second": True}, id="another-output"),
    ],
)
def test_signatures_tell_outputs_apart(tmp_path: Path, changed: dict[str, object]) -> None:
    """Whatever numbers the two files gave to their specs."""

    def signature(name: str, first: int, **output: object) -> bytes | None:
        writer = Writer(tmp_path / name, run=name, plan={})
        for size in range(first):
            writer.spec("uint8", (size,), "cpu")
        value = {"dtype": "float32", "shape": (4,), "device": "cpu", "digest": b"x" * 16, **output}
        spec = writer.spec(value["dtype"], value["shape"], value["device"])
        writer.events.append((0, 0, 0, 3, 0, writer.site("", "aten.mm.default"), 0, None, None, 0))
        writer.outputs.append((0, 0, spec, value["digest"], None))
        if "second" in output:
            writer.outputs.append((0, 1, spec, value["digest"], None))
        writer.close(manifest={}, closing={"events": 1})
        return Trace.open(tmp_path / name).signature(0)

    assert signature("a", 0) == signature("b", 3) != signature("c", 0, **changed)
    assert signature("d", 0, device="cuda:0") == signature("e", 0)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_kept_tensors_come_back_whole(tmp_path: Path, size: int) -> None:
    stream = os.urandom(size)
    writer = Writer(tmp_path / "a", run="a", plan={})
    writer.events.append((0, 0, 0, 3, 0, writer.site("", "aten.mm.default"), 0, None, None, 0))
    writer.payload(0, 1, 2, memoryview(stream))
    writer.close(manifest={}, closing={"events": 1})
    trace = Trace.open(tmp_path / "a")
    assert trace.payload(0, 1, 2) == stream
    assert trace.payload(0, 0, 2) is None
    assert trace.payload(0, 1, 1) is None


def test_an_empty_payload_is_kept(tmp_path: Path) -> None:
    """An empty tensor's memory may be at no address."""
    writer = Writer(tmp_path / "a", run="a", plan={})
    writer.events.append((0, 0, 0, 3, 0, writer.site("", "aten.mm.default"), 0, None, None, 0))
    nowhere = (ctypes.c_ubyte * 0).from_address(0)
    writer.payload(0, 0, 0, memoryview(nowhere).cast("B"))
    writer.close(manifest={}, closing={"events": 1})
    assert Trace.open(tmp_path / "a").payload(0, 0, 0) == b""


def test_flush_clears_in_place(tmp_path: Path) -> None:
    """Capture holds on to the lists."""
    writer = Writer(tmp_path / "a", run="a", plan={})
    events, outputs, inputs = writer.events, writer.outputs, writer.inputs
    spec = writer.spec("float32", (), "cpu")
    events.append((0, 0, 0, 3, 0, writer.site("", "aten.mm.default"), 0, None, None, 0))
    outputs.append((0, 0, spec, b"x" * 16, None))
    inputs.append((0, 0, spec, b"x" * 16, None))
    writer.flush()
    assert (events, outputs, inputs) == ([], [], [])
    assert (writer.events, writer.outputs, writer.inputs) == (events, outputs, inputs)
    writer.discard_connection()


def test_numbers_and_rows_from_many_threads(tmp_path: Path) -> None:
    """No event may refer to a number whose row another thread's flush left behind."""
    writer = Writer(tmp_path / "a", run="a", plan={})
    each, threads = 400, 8
    start = threading.Barrier(threads)
    for name in range(1, threads):
        assert writer.thread(str(name)) == name

    def record(thread: int) -> None:
        start.wait()
        for n in range(each):
            site = writer.site(f"m{n % 97}", f"aten.op{n}.default")
            code = writer.code(f"x.py:{n}")
            spec = writer.spec("float32", (n,), "cpu")
            event = n * threads + thread
            writer.outputs.append((event, 0, spec, event.to_bytes(16, "little"), None))
            writer.events.append((event, 0, 0, 3, thread, site, 0, code, None, 0))
            if n % 16 == 0:
                writer.flush()

    running = [threading.Thread(target=record, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    writer.close(manifest={}, closing={"events": each * threads})

    trace = Trace.open(tmp_path / "a")
    assert len(trace) == each * threads
    assert len(trace.sites) == len(trace.files[0].specs) == each
    for i in range(0, len(trace), 37):
        event = trace.event(i)
        n = i // threads
        module, op = f"m{n % 97}", f"aten.op{n}.default"
        assert event.key == SiteKey(
            0, "forward", module, op, 0, str(i % threads) if i % threads else ""
        )
        assert event.outputs == (
            Output(TensorSpec("float32", (n,), "cpu"), i.to_bytes(16, "little")),
        )


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "a"
    writer = Writer(path, run="a", plan={})
    site, spec = writer.site("", "aten.mm.default"), writer.spec("float32", (), "cpu")
    for i in range(100):
        writer.events.append((i, 0, 0, 3, 0, site, i, None, None, 0))
        writer.outputs.append((i, 0, spec, bytes([i]) * 16, None))
    child = os.fork()
    if child == 0:
        try:
            writer.discard_connection()
            writer.flush()
            writer.payload(0, 1, 0, memoryview(b"of the child"))
            writer.close(manifest={}, closing={"events": 0})
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.close(manifest={}, closing={"events": 100})
    trace = Trace.open(path)
    assert len(trace) == 100
    assert trace.payload(0, 1, 0) is None


def test_a_program_may_change_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = Writer(Path("a"), run="a", plan={})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.close(manifest={}, closing={"events": 0})
    assert len(Trace.open(tmp_path / "a")) == 0


def test_a_trace_never_overwrites_one(written: Callable[..., Path]) -> None:
    path = written()
    before = path.read_bytes()
    with pytest.raises(TraceError, match="never overwrites"):
        Writer(path, run="b", plan={})
    assert path.read_bytes() == before


def test_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot write the trace"):
        Writer(tmp_path / "absent" / "a", run="a", plan={})


def test_rows_that_could_not_be_written_are_said_so_and_kept(tmp_path: Path) -> None:
    """A full disk, here a limit on pages: an error of the trace's, and another flush may work."""
    writer = Writer(tmp_path / "a", run="a", plan={})
    connection = writer._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}").fetchone()
    site = writer.site("", "aten.mm.default")
    writer.events.extend((i, 0, 0, 3, 0, site, i, None, None, 0) for i in range(5000))
    with pytest.raises(TraceError, match="full"):
        writer.flush()
    assert len(writer.events) == 5000
    connection.execute("PRAGMA max_page_count=1000000").fetchone()
    writer.close(manifest={}, closing={"events": 5000})
    trace = Trace.open(tmp_path / "a")
    assert len(trace) == 5000
    assert trace.site_name(4999) == ("", "aten.mm.default")


def test_rows_that_were_refused_leave_no_half_of_themselves(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a", run="a", plan={})
    site = writer.site("", "aten.mm.default")
    writer.events.extend([(0, 0, 0, 3, 0, site, 0, None, None, 0)] * 2)
    with pytest.raises(TraceError, match="UNIQUE"):
        writer.flush()
    del writer.events[1:]
    writer.close(manifest={}, closing={"events": 1})
    assert len(Trace.open(tmp_path / "a")) == 1
