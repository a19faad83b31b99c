"""The axes of a matrix as they are written: what is taken, and what is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_audit.audit import axes
from repro_audit.audit.axes import cells_of, changes_of, check_here
from repro_audit.errors import UsageError
from repro_audit.model import Axis
from repro_audit.replicate.machine import Machine

PROGRAM = "device, threads, isa, tf32, mkldnn, deterministic, hash-seed"
MODEL = "def build_model():\n    pass\n\n\ndef build_inputs():\n    pass\n"


def test_axes_and_options(audit_command, rooms) -> None:
    result = audit_command(
        *("matrix", "train.py", "--vary", "threads=1,02", "--vary", "isa=default,avx2", "--grid"),
        *("--repeats", "3", "--jobs", "2", "--steps", "4", "--seed", "7", "--isolate"),
        *("--", "--lr", "0.1"),
    )
    assert result.exit_code == 0, result.stderr
    (request,) = rooms.matrices
    assert request.axes == (Axis("threads", ("1", "2")), Axis("isa", ("default", "avx2")))
    assert (request.grid, request.repeats, request.jobs) == (True, 3, 2)
    audit = request.audit
    assert (audit.steps, audit.seed, audit.isolate, audit.target.args) == (
        4,
        7,
        True,
        ("--lr", "0.1"),
    )


def test_one_run_of_two_of_each_cell_and_one_after_the_other_by_default(
    audit_command, rooms
) -> None:
    assert audit_command("matrix", "train.py", "--vary", "threads=1,2").exit_code == 0
    (request,) = rooms.matrices
    assert (request.grid, request.repeats, request.jobs) == (False, 2, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", f"no axis to vary; name one, such as --vary threads=1,2. There are: {PROGRAM}"),
        ("--vary thread=1,2", f"'thread' is no axis. Is it threads? There are: {PROGRAM}"),
        ("--vary colour=1,2", f"'colour' is no axis. There are: {PROGRAM}"),
        (
            "--vary batch=1,8",
            "batch is an axis of model files and classes, and train.py is a script, "
            f"whose axes are: {PROGRAM}",
        ),
        (
            "--vary threads=1,2 --vary threads=4,8",
            "threads is varied twice; write its values together: --vary threads=A,B",
        ),
        (
            "--vary threads=4",
            "--vary threads=4 has one value, and nothing to compare it with; threads takes whole "
            "numbers from 1 to 1,024",
        ),
        (
            "--vary isa",
            "--vary isa has no value, and nothing to compare it with; isa takes default, avx2, "
            "avx512",
        ),
        ("--vary isa=default,avx", "isa has no value 'avx'. Is it avx2?"),
        ("--vary tf32=on,maybe", "tf32 has no value 'maybe'. There are: on, off"),
        ("--vary threads=1,1", "--vary threads=1,1 has 1 twice; --repeats N runs it more often"),
        ("--vary threads=1,01", "--vary threads=1,01 has 1 twice"),
        ("--vary threads=0,1", "threads=0 is none of its values: it takes whole numbers from 1"),
        ("--vary threads=1,-2", "threads=-2 is none of its values"),
        ("--vary hash-seed=0,4294967296", "it takes whole numbers from 0 to 4,294,967,295"),
        ("--vary device=cpu,gpu", "device has no value 'gpu'"),
        ("--vary device=cpu,cuda:N", "device has no value 'cuda:N'"),
        (
            "--vary device=cpu,cuda --device cpu",
            "--device and --vary device both choose the device; give one of them",
        ),
        (
            "--vary deterministic=on,off --deterministic",
            "--deterministic and --vary deterministic exclude each other; give one of them",
        ),
        (
            "--vary threads=1,2 --device cpu,cuda",
            "--device takes one device here; --vary device=A,B compares several",
        ),
    ],
)
def test_what_is_refused(audit_command, rooms, words: str, said: str) -> None:
    result = audit_command("matrix", "train.py", *words.split())
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert (rooms.matrices, Path(".repro-audit").exists()) == ([], False)


def test_model_files_have_axes_of_their_own(audit_command, rooms) -> None:
    Path("model.py").write_text(MODEL)
    words = ["--vary", "batch=1,8", "--vary", "dtype=float32,bfloat16"]
    assert audit_command("matrix", "model.py", *words).exit_code == 0
    result = audit_command("matrix", "model.py", "--vary", "compile=eager,indcutor")
    assert result.exit_code == 2
    assert "compile has no value 'indcutor'. Is it inductor? There are: eager, " in result.stderr
    result = audit_command("matrix", "model.py", "--vary", "x=1,2")
    assert f"There are: {PROGRAM}, batch, dtype, compile" in result.stderr


def test_nothing_is_overwritten(audit_command, rooms) -> None:
    Path("report.json").write_text("mine")
    result = audit_command("matrix", "train.py", "--vary", "threads=1,2", "-o", "report.json")
    assert (result.exit_code, Path("report.json").read_text()) == (2, "mine")
    assert "--force overwrites it" in result.stderr
    assert rooms.matrices == []


def test_exit_codes(audit_command, rooms, divergent) -> None:
    rooms.answer = divergent
    words = ["matrix", "train.py", "--vary", "threads=1,2"]
    assert audit_command(*words).exit_code == 1
    assert audit_command(*words, "--exit-zero").exit_code == 0


# -- what the words become --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        (
            Axis("isa", ("default", "avx512")),
            "this CPU has no avx512: torch computes with avx2 here. There are: default, avx2",
        ),
        (
            Axis("device", ("cpu", "mps")),
            "torch finds no device mps here. There are: cpu, cuda (2)",
        ),
        (Axis("device", ("cuda:1", "cuda:2")), "torch finds no device cuda:2 here."),
    ],
)
def test_what_this_machine_has_not(axis: Axis, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_here([axis], lambda: Machine("avx2", {"cuda": 2, "mps": 0, "xpu": 0}))
    assert str(raised.value).startswith(said)


def test_torch_is_asked_only_where_that_matters() -> None:
    def ask() -> Machine:
        raise AssertionError

    check_here([Axis("threads", ("1", "2")), Axis("tf32", ("on", "off"))], ask)
    check_here([Axis("isa", ("default", "avx2"))], lambda: Machine("avx512", {}))
    check_here([Axis("device", ("cpu", "cuda:1"))], lambda: Machine("default", {"cuda": 2}))


def test_one_axis_at_a_time_or_all_combinations() -> None:
    two = [Axis("threads", ("1", "2")), Axis("tf32", ("off", "on"))]
    assert cells_of(two, grid=False) == [
        {"threads": "1", "tf32": "off"},
        {"threads": "2", "tf32": "off"},
        {"threads": "1", "tf32": "on"},
    ]
    assert len(cells_of(two, grid=True)) == 4
    assert cells_of(two, grid=True)[0] == cells_of(two, grid=False)[0]


def test_what_a_run_is_told_of_each_axis() -> None:
    every = [
        Axis("device", ("cpu", "cuda")),
        Axis("threads", ("1", "2")),
        Axis("deterministic", ("on", "off")),
        Axis("hash-seed", ("3", "4")),
        Axis("batch", ("2", "8")),
        Axis("dtype", ("bfloat16", "float32")),
        Axis("compile", ("eager", "inductor")),
    ]
    first, *_, last = cells_of(every, grid=False)
    assert changes_of(first, every, "controlled") == {
        "mode": "deterministic",
        "device": "cpu",
        "held": ("threads=1", "deterministic=on"),
        "hash_seed": 3,
        "batch": 2,
        "rows": 8,
        "dtype": "bfloat16",
        "compile": None,
    }
    assert changes_of(last, every, "controlled")["compile"] == "inductor"
    off = changes_of({**first, "deterministic": "off"}, every, "controlled")
    assert (off["mode"], off["held"]) == ("controlled", ("threads=1", "deterministic=off"))


def test_every_axis_is_told_of_in_the_help(audit_command) -> None:
    page = audit_command("matrix", "--help").output
    assert all(name in page for name in axes.KINDS)
