"""Which word is the target, which are the tool's options, and which the program's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("words", "args", "runs"),
    [
        ("run train.py", (), 2),
        ("train.py", (), 2),
        ("train.py --runs 3", (), 3),
        ("--runs 3 train.py", (), 3),
        ("--runs=3 train.py -- --lr 0.1 -- x", ("--lr", "0.1", "--", "x"), 3),
        ("train.py -- --runs 7", ("--runs", "7"), 2),
        ("train.py --", (), 2),
    ],
)
def test_options_stand_anywhere_before_the_dashes(
    audit_command, rooms, words: str, args: tuple[str, ...], runs: int
) -> None:
    result = audit_command(*words.split())
    assert result.exit_code == 0, result.stderr
    (request,) = rooms.requests
    assert len(request.replicas) == runs
    assert Path(request.target.path).name == "train.py"
    assert request.target.args == args


def test_module(audit_command, rooms, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "train.py").write_text("import torch\n")
    result = audit_command("-m", "pkg.train", "--", "--lr", "1")
    assert result.exit_code == 0, result.stderr
    assert rooms.requests[0].target.kind == "module"
    assert rooms.requests[0].target.name == "pkg.train"
    assert rooms.requests[0].target.args == ("--lr", "1")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("run train.py --lr 0.1", "repro-audit run train.py -- --lr 0.1"),
        ("train.py --lr=0.1", "repro-audit run train.py -- --lr=0.1"),
        ("run --lr 0.1 train.py", "repro-audit run train.py -- --lr 0.1"),
        ("train.py 5 --runs 5", "repro-audit run train.py --runs 5 -- 5"),
        ("--seed 3 train.py -lr 3 -x", "repro-audit run train.py --seed 3 -- -lr 3 -x"),
        ("train.py --lr 1 -- --more", "repro-audit run train.py -- --lr 1 --more"),
        ("-m pkg.train fast", "repro-audit run -m pkg.train -- fast"),
        ("record train.py -o x.audit a", "repro-audit record train.py -o x.audit -- a"),
    ],
)
def test_stray_words_are_refused_with_the_command_that_was_meant(
    audit_command, rooms, words: str, meant: str
) -> None:
    result = audit_command(*words.split())
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"  {meant}"
    assert rooms.requests == []


def test_the_command_that_is_printed_is_quoted(audit_command) -> None:
    result = audit_command("train.py", "--name", "a b")
    assert result.stderr.endswith("repro-audit run train.py -- --name 'a b'\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train.py --rusn 3", "did you mean --runs?"),
        ("train.py -oreport.json", "did you mean -o report.json?"),
        ("rum train.py", "did you mean `repro-audit run`?"),
        ("reprot", "did you mean `repro-audit report`?"),
    ],
)
def test_misspelt_words(audit_command, words: str, said: str) -> None:
    result = audit_command(*words.split())
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_named_like_a_subcommand_is_a_target(audit_command, rooms, tmp_path) -> None:
    (tmp_path / "rum").write_text("import torch\n")
    assert audit_command("rum").exit_code == 0
    assert Path(rooms.requests[0].target.path).name == "rum"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run", "no target"),
        ("run --runs 2", "repro-audit run train.py"),
        ("train.py --runs 0", "not in the range x>=1"),
        ("train.py --runs 1", "--runs 2 at least, or several devices"),
        ("train.py --runs 1 --device cpu", "--runs 2 at least, or several devices"),
        ("train.py --runs", "requires an argument"),
        ("train.py --steps 0", "not in the range"),
        ("train.py --timeout 0", "not in the range"),
        ("train.py --timeout nan", "no number of seconds"),
        ("train.py --seed -1", "not in the range"),
        ("train.py --device cpu,cpu", "names a device twice"),
        ("record train.py -o a.audit --device cpu,cuda", "record on each"),
        ("train.py --device gpu", "cuda:N"),
        ("train.py --device cuda:", "cuda:N"),
        ("train.py --device cpu,", "cuda:N"),
        ("train.py --deterministic --as-is", "give one of them"),
        ("train.py --format yaml", "'yaml' is not one of"),
        ("train.py --level lines", "'lines' is not"),
        ("record train.py", "Missing option '-o'"),
        ("compare a", "two traces or more"),
        ("compare", "two traces or more"),
        ("report a b", "unexpected extra argument"),
    ],
)
def test_usage_errors(audit_command, rooms, words: str, said: str) -> None:
    result = audit_command(*words.split())
    assert result.exit_code == 2
    assert result.stderr.startswith("repro-audit: error: ")
    assert said in result.stderr
    assert result.stdout == ""
    assert rooms.requests == []


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12", "mps", "xpu"])
def test_devices(audit_command, rooms, device: str) -> None:
    assert audit_command("train.py", "--device", device).exit_code == 0
    assert rooms.requests[0].devices == (device,)
    assert [on for _, on in rooms.requests[0].replicas] == [device] * 2


def test_several_devices(audit_command, rooms) -> None:
    assert audit_command("train.py", "--device", "cpu,cuda:1").exit_code == 0
    assert rooms.requests[0].replicas == (("cpu", "cpu"), ("cuda-1", "cuda:1"))
    assert audit_command("train.py", "--device", "cpu,cuda:1", "--runs", "2").exit_code == 0
    assert [name for name, _ in rooms.requests[1].replicas] == [
        "cpu-run-1",
        "cpu-run-2",
        "cuda-1-run-1",
        "cuda-1-run-2",
    ]


def test_all_options_reach_the_request(audit_command, rooms) -> None:
    words = "train.py --runs 4 --steps 5 --timeout 1.5 --isolate --device cpu --deterministic"
    more = "--level ops --seed 9 --no-confirm --self-check --quiet"
    result = audit_command(*words.split(), *more.split())
    assert result.exit_code == 0, result.stderr
    (request,) = rooms.requests
    assert (request.runs, request.steps, request.timeout, request.seed) == (4, 5, 1.5, 9)
    assert (request.isolate, request.devices, request.mode) == (True, ("cpu",), "deterministic")
    assert (request.level, request.confirm, request.self_check) == ("ops", False, True)
    assert audit_command("train.py", "--as-is").exit_code == 0
    assert (rooms.requests[1].mode, rooms.requests[1].confirm) == ("as-is", True)
