"""Bad input: one clear message, the right exit code, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_targets_that_are_none(audit, program, tmp_path: Path) -> None:
    program("syntax.py", "x = (\n")
    (tmp_path / "bytes.py").write_bytes(b'x = "\xff"\n')
    program("package/__init__.py", "")
    for words, *says in [
        (["missing.py"], "missing.py does not exist"),
        (["package"], "is a directory", "Name the Python file"),
        (["syntax.py"], "syntax.py:1: SyntaxError: '(' was never closed", "\n    x = (\n"),
        (["bytes.py"], "bytes.py:1: SyntaxError", "utf-8"),
        (["-m", "no_such_module"], "No module named no_such_module", "Run from the directory"),
        (["-m", "package"], "package without __main__.py", "-m package.NAME"),
    ]:
        result = audit(*words)
        assert result.code == 2
        assert result.stderr.startswith("repro-audit: error: ")
        assert all(text in result.stderr for text in says), result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / ".repro-audit").exists()


def test_models_that_cannot_be_made(audit, program) -> None:
    program(
        "net.py",
        """
        import torch
        class Needs(torch.nn.Module):
            def __init__(self, width):
                super().__init__()
        class Inherits(Needs): pass
        class Other: pass
        """,
    )
    program("unfed.py", "import torch\ndef build_model(): return torch.nn.Linear(2, 2)\n")
    program(
        "none.py",
        "import torch\ndef build_model(): pass\ndef build_inputs(): return torch.ones(1)\n",
    )
    spec = ["--input", "float32[2,2]"]
    for words, *says in [
        (["unfed.py"], "no build_inputs()", "--input 'float32[8,3,32,32]'"),
        (["net.py:Nedds", *spec], "no class Nedds", "Is it net.py:Needs?"),
        (["net.py:Needs", *spec], "its arguments: width", "build_model()"),
        (["net.py:Inherits", *spec], "a required argument: 'width'", "build_model()"),
        (["net.py:Other", *spec], "Other of net.py gave a Other, not a torch.nn.Module"),
        (["none.py"], "build_model() of none.py gave a NoneType, not a torch.nn.Module"),
    ]:
        result = audit(*words)
        assert result.code == 2, result
        assert all(text in result.stderr for text in says), result.stderr
        assert "Traceback" not in result.stderr


def test_a_build_model_that_raises(audit, program, first_run) -> None:
    path = program(
        "model.py",
        """
        def build_model():
            raise RuntimeError("no weights")
        def build_inputs(): ...
        """,
    )
    result = audit("model.py")
    assert result.code == 3
    assert first_run("err").splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 2, in build_model',
        '    raise RuntimeError("no weights")',
        "RuntimeError: no weights",
    ]


def test_an_error_inside_an_op_shows_no_frame_of_ours(audit, program, first_run) -> None:
    program("train.py", "import torch\ntorch.ones(2, 2) @ torch.ones(3, 3)\n")
    result = audit("train.py")
    assert result.code == 3
    words = first_run("err").splitlines()
    assert words[0] == "Traceback (most recent call last):"
    assert words[2] == "    torch.ones(2, 2) @ torch.ones(3, 3)"
    assert words[-1].startswith("RuntimeError: ")
    assert "mat1 and mat2 shapes" in words[-1]
    assert not [line for line in words if "repro_audit" in line or "_ops.py" in line]


FAILING = {
    "chain.py": """
        def f():
            raise ValueError("bad")
        try:
            f()
        except ValueError as error:
            raise RuntimeError("worse") from error
        """,
    "group.py": """
        found = []
        try:
            1 / 0
        except ZeroDivisionError as error:
            found.append(error)
        raise ExceptionGroup("many", found)
        """,
    "without_words.py": """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no words")
        raise Mute
        """,
    "hook.py": """
        import sys
        def mine(kind, error, tb):
            print("mine:", kind.__name__, tb.tb_frame.f_code.co_filename, file=sys.stderr)
        sys.excepthook = mine
        1 / 0
        """,
    "interrupts_itself.py": "raise KeyboardInterrupt\n",
    "says.py": "import sys; sys.exit('no data')\n",
    "shadowed.py": "import torch\n",
    "import_error.py": "import missing_module\n",
}


@pytest.mark.interpreter
@pytest.mark.parametrize("name", FAILING)
def test_a_program_fails_as_it_does_plainly(audit, plainly, program, first_run, name: str) -> None:
    program(name, FAILING[name])
    if name == "shadowed.py":
        program("tarfile.py", "raise ValueError('not the one you want')\n")
    result = audit(name)
    assert result.code == 3
    assert f"{name} (run-1) failed with exit code" in result.stderr
    plain = plainly(name)
    assert plain.code != 0
    assert first_run("err") == plain.stderr
    assert plain.stderr.splitlines()[-1] in result.stderr


def test_exit_codes_and_signals(audit, program) -> None:
    for text, *says in [
        ("import sys; sys.exit(7)", "exit code 7", "It printed nothing to standard error"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV (a crash in native code)"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL (out of memory?)"),
        ("import sys; sys.stderr.close(); raise OSError", "exit code 1"),
    ]:
        program("train.py", text + "\n")
        result = audit("train.py")
        assert result.code == 3, result
        assert all(text in result.stderr for text in says), result.stderr
        assert "run-1.out and" in result.stderr


@pytest.mark.interpreter
def test_without_evidence_there_is_no_verdict(audit, program) -> None:
    for text, code, says in [
        (
            "import ctypes; ctypes.CDLL(None)._exit(0)",
            4,
            "ended before its trace was whole. Let it return",
        ),
        ("import os; os._exit(0)", 4, "the program never imported torch"),
        ("print(1)", 4, "the program never imported torch"),
        ("import torch", 4, "ran no torch op"),
        (
            # It ignores what would make it a part of the run.
            "import subprocess as s, sys, torch\n"
            "s.run([sys.executable, '-I', '-c', 'import torch; torch.ones(1) + 1'], check=True)",
            4,
            "ran no torch op in a process that is observed",
        ),
    ]:
        program("train.py", text + "\n")
        result = audit("train.py")
        assert result.code == code
        assert says in result.stdout + result.stderr
        assert "IDENTICAL" not in result.stdout


def test_modules_of_a_program_without_any(audit, program) -> None:
    program("train.py", "import time, torch\nprint(time.time_ns(), torch.ones(1) + 1)\n")
    result = audit("train.py", "--level", "modules")
    assert result.code == 4
    said = " ".join(result.stdout.split())
    assert "no module was called: --level ops looks at" in said
    assert "RA106 the runs printed different things" in said


def test_what_fails_in_the_second_run_only(audit, program) -> None:
    program(
        "train.py",
        """
        import pathlib, torch
        torch.ones(2) + 1
        if pathlib.Path("marker").exists():
            raise KeyError("second")
        pathlib.Path("marker").touch()
        """,
    )
    result = audit("train.py")
    assert result.code == 3
    assert "train.py (run-2) failed" in result.stderr
    assert "KeyError: 'second'" in result.stderr


ENDING_WELL = {
    "exits with 0": "sys.exit(0)",
    "closes its output": "sys.stdout.close()",
    "changes directory": "os.chdir('/')",
    "removes its directory": "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "forks": "if os.fork() == 0: sys.exit(5)\nos.wait()",
    "keeps a pool": "pool = ThreadPoolExecutor(1); print(pool.submit(lambda: x + 1).result())",
    "keeps a pool and exits": "p = ThreadPoolExecutor(1); p.submit(lambda: x + 1); sys.exit()",
    "thread outlives main": "Thread(target=lambda: (time.sleep(0.2), print(x * 2))).start()",
}


PRINTED = {"keeps a pool": "tensor([3., 3.])\n", "thread outlives main": "tensor([4., 4.])\n"}


@pytest.mark.interpreter
def test_programs_that_end_well_in_their_own_way(audit, program, tmp_path: Path) -> None:
    head = """
import os, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
"""
    branches = "".join(
        f"elif way == {name!r}:\n" + "".join(f"    {line}\n" for line in text.split("\n"))
        for name, text in ENDING_WELL.items()
    )
    program(
        "train.py",
        f"{head}if os.fork() == 0: sys.exit(1)\nos.wait()\nimport torch\nx = torch.ones(2) + 1\n"
        "way = sys.argv[1]\n"
        f"if way == '': pass\n{branches}",
    )
    for name in ENDING_WELL:
        words = ["train.py", "-o", "kept.audit", "--force", "-q", "--timeout", "30", "--", name]
        result = audit("record", *words)
        assert (result.code, result.stderr) == (0, ""), (name, result)
        assert result.stdout == PRINTED.get(name, ""), name
    assert audit("train.py", "--no-confirm", "--", "changes directory").code == 0
    manifest = json.loads(audit("report", "--format", "json").stdout)["runs"][0]["manifest"]
    assert manifest["directory"] == str(tmp_path)
    assert manifest["target"]["sha256"] is not None


PLAIN = """
import argparse, atexit, multiprocessing, os, pickle, sys, threading, time, warnings
assert not {"torch", "numpy"} & set(sys.modules)
os.environ["OMP_NUM_THREADS"] = "3"
IMPORTS
import torch
class Point:
    def __init__(self, x):
        self.x = x
def square(x):
    return x * x + sibling.VALUE
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    parser.add_argument("rest", nargs="*")
    print(parser.prog, parser.parse_args(), sys.argv, __file__, __name__)
    print(type(__spec__).__name__, getattr(__spec__, "name", None), __package__, __builtins__)
    print(type(__loader__).__name__, sys.path[0], __annotations__, os.getcwd())
    print(pickle.loads(pickle.dumps(Point(3))).x, sys.modules["__main__"].Point is Point)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [1, 2, 3]))
    print(torch.get_num_threads(), torch.ones(3) + 1)
    warnings.warn("careful", stacklevel=1)
    try:
        input("? ")
    except EOFError:
        print("nothing to read")
    atexit.register(lambda: print("at exit", Point.__name__))
    threading.Thread(target=lambda: (time.sleep(0.2), print("late"))).start()
if __name__ == "__main__":
    main()
"""


@pytest.mark.interpreter
def test_a_program_is_what_it_is_plainly(audit, plainly, program) -> None:
    program("sub/train.py", PLAIN.replace("IMPORTS", "import sibling"))
    program("sub/sibling.py", "VALUE = 3\n")
    program("package/__init__.py", "")
    program("package/sibling.py", "VALUE = 4\n")
    program("package/train.py", PLAIN.replace("IMPORTS", "from . import sibling"))
    arguments = ["--lr", "0.5", "--", "--steps"]
    for words in (["sub/train.py"], ["-m", "package.train"]):
        result = audit("record", *words, "-o", "kept.audit", "-q", "-f", "--", *arguments)
        expected = plainly(*words, *arguments)
        assert result == expected
        assert result.code == 0, result


def test_files_where_we_run_are_none_of_ours(audit, program) -> None:
    for name in ("json", "random", "struct", "hashlib", "sqlite3", "numpy"):
        program(f"{name}.py", f"raise ValueError('the wrong {name}')\n")
    program("sub/train.py", "import torch\ntorch.ones(1) + 1\n")
    result = audit("sub/train.py", "--no-confirm")
    assert (result.code, result.stderr) == (0, "")


def test_self_check_of_a_program_that_goes_elsewhere(audit, program) -> None:
    program("train.py", "import os, torch\nos.chdir('/')\ntorch.nn.Linear(2, 2)\n")
    result = audit("train.py", "--self-check", "--isolate", "--no-confirm")
    assert (result.code, result.stderr) == (0, ""), result
