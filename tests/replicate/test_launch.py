"""The supervisor, on tiny children: each takes the plan's path, as the real one does."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from repro_audit.errors import InterruptedRunError, ProgramFailedError, UsageError
from repro_audit.model import Plan, Target
from repro_audit.replicate import launch
from repro_audit.replicate.output import last_words
from repro_audit.replicate.plan import plan_from_json


def plan_in(directory: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "run": "run-1",
        "target": Target("script", "train.py"),
        "trace": str(directory / "run-1.sqlite"),
        "progress": str(directory / "run-1.progress"),
    }
    return Plan(**{**values, **changes})


def child(code: str) -> list[str]:
    return [sys.executable, "-c", "import os, sys, time\n" + textwrap.dedent(code)]


def run(directory: Path, code: str, **options: Any) -> launch.Outcome:
    plan = options.pop("plan", plan_in(directory))
    return launch.run(plan, directory=directory, command=child(code), **options)


def alive(pid: int) -> bool:
    # A process whose parent has gone is reaped by init, or stays a zombie where init does not.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_a_run_that_ends_well(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        "print('out'); print('err', file=sys.stderr); print(len(sys.stdin.read()), os.getcwd())",
    )
    assert (outcome.returncode, outcome.signal, outcome.timed_out) == (0, None, False)
    assert outcome.out.read_text() == f"out\n0 {Path.cwd()}\n"
    assert outcome.err.read_text() == "err\n"
    assert 0 < outcome.seconds < 30


def test_the_child_is_given_the_plan(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, seed=5)
    outcome = run(tmp_path, "print(open(sys.argv[1]).read())", plan=plan)
    assert plan_from_json(json.loads(outcome.out.read_text())) == plan
    assert Path(plan.progress).read_bytes() == bytes(16)


def test_the_environment_is_the_plans(tmp_path: Path) -> None:
    code = "print(os.environ.get('PYTHONHASHSEED'), os.environ.get('MINE'), 'HOME' in os.environ)"
    assert run(tmp_path, code, env={"MINE": "x"}).out.read_text() == "0 x False\n"
    assert "True" in run(tmp_path, code, env=None).out.read_text()


def test_a_copy_of_the_directory_runs_the_copy_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    here.mkdir()
    copy.mkdir()
    monkeypatch.chdir(here)
    for given, expected in [
        (str(here / "src" / "train.py"), "src/train.py"),
        ("src/train.py", "src/train.py"),
        ("/elsewhere/train.py", "/elsewhere/train.py"),
    ]:
        plan = plan_in(tmp_path, target=Target("script", given))
        code = "import json; print(os.getcwd(), json.load(open(sys.argv[1]))['target']['path'])"
        outcome = run(tmp_path, code, plan=plan, cwd=copy)
        assert outcome.out.read_text() == f"{copy} {expected}\n"


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(
        tmp_path,
        """
        import json, struct
        file = open(json.load(open(sys.argv[1]))["progress"], "r+b", buffering=0)
        for step in (1, 2):
            file.seek(0)
            file.write(struct.pack("<QQ", step, 100 * step))
            time.sleep(0.3)
        file.seek(0)
        file.write(struct.pack("<QQ", 3, 2**40))
        """,
        on_progress=lambda steps, events: told.append((steps, events)),
    )
    assert told == [(1, 100), (2, 200), (3, 2**40)]


def test_echo_passes_on_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "print('ü'); time.sleep(0.2); print('b'); print('c', file=sys.stderr)", echo=True)
    captured = capsys.readouterr()
    assert captured.out == "ü\nb\n"
    assert captured.err == "c\n"


def test_echo_is_not_late(tmp_path: Path) -> None:
    class Stream:
        def __init__(self) -> None:
            self.times: list[float] = []

        def write(self, text: str) -> None:
            self.times.append(time.monotonic())

        def flush(self) -> None:
            pass

    stream = Stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        run(tmp_path, "print('a'); time.sleep(0.6); print('b')", echo=True)
    assert stream.times[-1] - stream.times[0] > 0.3


def test_a_failed_program_is_quoted(tmp_path: Path) -> None:
    outcome = run(tmp_path, "print('noise', file=sys.stderr)\ndef f(): raise KeyError('lr')\nf()")
    assert outcome.returncode == 1
    error = launch.failure(outcome, plan_in(tmp_path))
    assert isinstance(error, ProgramFailedError)
    lines = str(error).splitlines()
    assert lines[0] == "train.py (run-1) failed with exit code 1:"
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-2] == "  KeyError: 'lr'"
    assert "noise" not in str(error)
    assert str(outcome.err) in lines[-1]


def test_the_exception_is_why_not_what_is_printed_after_it(tmp_path: Path) -> None:
    late = "atexit.register(print, 'a leak?', file=sys.stderr)"
    outcome = run(tmp_path, f"import atexit\n{late}\nraise OSError('in use\\nby another')")
    assert outcome.err.read_text().endswith("a leak?\n")
    said = launch.failure(outcome, plan_in(tmp_path)).in_a_line
    assert said == "train.py (run-1) failed with exit code 1: OSError: in use"
    loud = "class Loud:\n def __del__(self): raise ValueError('late')\nkept = Loud()"
    outcome = run(tmp_path, f"{loud}\nraise OSError('in use')")
    assert "Exception ignored in" in outcome.err.read_text()
    error = launch.failure(outcome, plan_in(tmp_path))
    assert error.in_a_line.endswith("exit code 1: OSError: in use")
    assert "OSError: in use" in str(error)
    outcome = run(tmp_path, "print('one', 'two', sep=chr(10), file=sys.stderr)\nos._exit(1)")
    assert launch.failure(outcome, plan_in(tmp_path)).in_a_line.endswith("exit code 1: two")


def test_a_program_that_fails_without_a_word(tmp_path: Path) -> None:
    outcome = run(tmp_path, "os._exit(9)")
    message = str(launch.failure(outcome, plan_in(tmp_path)))
    assert "exit code 9" in message
    assert "printed nothing to standard error" in message


@pytest.mark.parametrize(
    ("name", "hint"), [("SIGKILL", "out of memory?"), ("SIGSEGV", "a crash in")]
)
def test_a_program_that_is_killed(tmp_path: Path, name: str, hint: str) -> None:
    outcome = run(tmp_path, f"import signal; os.kill(os.getpid(), signal.{name})")
    assert outcome.signal == name
    assert f"killed by {name} ({hint}" in str(launch.failure(outcome, plan_in(tmp_path)))


def test_a_program_that_does_not_end_is_interrupted_and_shows_where(tmp_path: Path) -> None:
    outcome = run(tmp_path, "time.sleep(60)", timeout=0.5)
    assert outcome.timed_out
    assert outcome.seconds < 5
    message = str(launch.failure(outcome, plan_in(tmp_path)))
    assert "did not end within 0.5 s" in message
    assert "KeyboardInterrupt" in message
    assert message.endswith("--steps N ends it after N steps, --timeout S waits longer.")


def test_a_program_that_ignores_the_interrupt_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE", 0.2)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    outcome = run(tmp_path, code, timeout=1.0)
    assert outcome.timed_out
    assert outcome.signal == "SIGKILL"
    assert "did not end within 1 s" in str(launch.failure(outcome, plan_in(tmp_path)))


def test_what_a_program_leaves_running_is_killed(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        """
        import subprocess
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(left.pid)
        """,
    )
    assert outcome.returncode == 0
    assert outcome.seconds < 10
    assert gone(int(outcome.out.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_and_says_so(tmp_path: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    started = tmp_path / "started"

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = f"""
        import pathlib
        path = pathlib.Path({str(tmp_path / "pid")!r})
        path.write_text(str(os.getpid()))
        open({str(started)!r}, "w").close()
        time.sleep(60)
        """
    with pytest.raises(InterruptedRunError, match="run-1"):
        run(tmp_path, code)
    thread.join()
    assert gone(int((tmp_path / "pid").read_text()))
    assert "KeyboardInterrupt" in (tmp_path / "run-1.err").read_text()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_terminal_interrupt_does_not_reach_the_child_twice(tmp_path: Path) -> None:
    outcome = run(tmp_path, "print(os.getsid(0) == os.getpid() == os.getpgid(0))")
    assert outcome.out.read_text() == "True\n"


def test_a_run_may_be_supervised_from_any_thread(tmp_path: Path) -> None:
    outcomes: list[launch.Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(tmp_path, "print(1)")))
    thread.start()
    thread.join()
    assert outcomes[0].returncode == 0


def test_a_run_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The run of run-1 cannot be started"):
        launch.run(plan_in(tmp_path), directory=tmp_path, command=[str(tmp_path / "none")])


def test_the_default_child_is_ours() -> None:
    assert launch._child() == [sys.executable, "-m", "repro_audit.replicate.child"]


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    assert last_words(log) == []
    log.write_text("".join(f"line {n}\n" for n in range(50)))
    assert last_words(log) == [f"line {n}" for n in range(40, 50)]
    log.write_bytes(b"\x1b[31mred\x1b[0m \xff\x07\r\n")
    assert last_words(log) == ["red \ufffd"]
    log.write_text("Fatal Python error: Segmentation fault\n\nCurrent thread:\n  File x\n")
    assert last_words(log)[0] == "Fatal Python error: Segmentation fault"


def test_last_words_of_a_chain_of_exceptions(tmp_path: Path) -> None:
    code = (
        "try: 1/0\nexcept ZeroDivisionError as e:\n try: raise OSError from e\n"
        " except OSError: raise ValueError('last')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    log = tmp_path / "log"
    log.write_bytes(b"Traceback (most recent call last):\nOld: one\n\nwent on\n" + done.stderr)
    words = last_words(log)
    assert "ZeroDivisionError: division by zero" in words
    assert words[-1] == "ValueError: last"
    assert "Old: one" not in words


def test_last_words_of_a_deep_recursion_are_shortened(tmp_path: Path) -> None:
    log = tmp_path / "log"
    frames = "".join(f'  File "x.py", line {n}, in f\n    f()\n' for n in range(5000))
    log.write_text(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n")
    words = last_words(log)
    assert len(words) <= 24
    assert words[-1] == "RecursionError: too deep"
