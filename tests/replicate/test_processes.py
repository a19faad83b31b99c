"""Processes that a program starts: what they are called, and that they are what they would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_audit.errors import UsageError
from repro_audit.model import Plan, Target
from repro_audit.replicate import launch, ours
from repro_audit.replicate.census import _runs

Ran = tuple[launch.Outcome, Path]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; runs are kept beside it."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return place


@pytest.fixture
def run(directory: Path) -> Callable[..., Ran]:
    """Runs a program, observed: how it ended, and the log of its processes."""

    def call(text: str, name: str = "run-1", **changes: Any) -> Ran:
        program = directory / "train.py"
        program.write_text(textwrap.dedent(text))
        kept = directory.parent / "kept"
        kept.mkdir(exist_ok=True)
        plan = Plan(
            run=name,
            target=Target("script", "train.py"),
            trace=str(kept / f"{name}.sqlite"),
            progress=str(kept / f"{name}.progress"),
            **changes,
        )
        outcome = launch.run(plan, directory=kept, timeout=60)
        error = ours.found(plan)
        if error is not None:
            raise error
        return outcome, kept / f"{name}.processes"

    return call


def named(log: Path, what: str = "here") -> list[str]:
    lines = [line.split() for line in log.read_text().splitlines()]
    return [name for told, _, name in lines if told == what]


SHOW = """
import json, os, sys
def show():
    same = {k: v for k, v in os.environ.items() if k not in {"_", "PYTHONHASHSEED", "OLDPWD"}}
    ours = sorted(name for name in sys.modules if "sitecustomize" in name)
    print(json.dumps([same, sys.path, sys.argv, ours]), flush=True)
"""
WAYS = {
    "a command": "subprocess.run([sys.executable, 'show.py', 'x'], check=True)",
    "a command with an environment": "subprocess.run([sys.executable, 'show.py'], env={'A': 'b'})",
    "a command's own path": "subprocess.run([sys.executable, 'show.py'], env={'PYTHONPATH': '/x'})",
    "posix_spawn": "os.waitpid(os.posix_spawn(sys.executable, [sys.executable, 'show.py'],"
    " {**os.environ, 'N': '1'}), 0)",
    "a shell": "subprocess.run(f'{sys.executable} show.py', shell=True)",
    "system": "os.system(f'{sys.executable} show.py'); show()",
    "spawnv": "os.spawnv(os.P_WAIT, sys.executable, [sys.executable, 'show.py'])",
    "fork and exec": "if os.fork() == 0: os.execl(sys.executable, sys.executable, 'show.py')\n"
    "    os.wait()",
    "exec": "os.execlp(sys.executable, sys.executable, 'show.py')",
    "fork": "if os.fork() == 0: show(); os._exit(0)\n    os.wait()",
    **{
        method: f"p = multiprocessing.get_context({method!r}).Process(target=show); p.start();"
        " p.join(); print(p.exitcode)"
        for method in ("fork", "spawn", "forkserver")
    },
}


@pytest.mark.parametrize("path", [None, "/one:/two"])
def test_a_process_is_what_it_is_plainly(
    run: Callable[..., Ran],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str | None,
) -> None:
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    (directory / "show.py").write_text(SHOW + "show()\n")
    for way, code in WAYS.items():
        main = f"if __name__ == '__main__':\n    {code}\n"
        text = f"{SHOW}\nimport multiprocessing, subprocess\n{main}"
        outcome, _ = run(text, name=way.replace(" ", "-"))
        plain = subprocess.run(
            [sys.executable, "train.py"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=dict(os.environ),  # without what a library has put past it, as readline does
        )
        assert outcome.out.read_text() == plain.stdout, way
        assert (outcome.returncode, outcome.err.read_text()) == (0, plain.stderr), way
        assert plain.stdout


@pytest.mark.parametrize(
    "text",
    [
        "print('mine', __file__)\nWHAT = 7\n",
        "raise ValueError('mine')\n",
        "import no_such_module\n",
    ],
)
def test_a_sitecustomize_of_the_users_is_kept(
    run: Callable[..., Ran], directory: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (directory / "site").mkdir()
    (directory / "site" / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(directory / "site"))
    (directory / "show.py").write_text(
        "import sys; m = sys.modules.get('sitecustomize')\n"
        "print(getattr(m, 'WHAT', None), getattr(m, '__file__', None))\n"
    )
    outcome, log = run("import subprocess, sys; subprocess.run([sys.executable, 'show.py'])\n")
    plain = subprocess.run(
        [sys.executable, "train.py"], capture_output=True, text=True, check=False, timeout=60
    )
    assert named(log) == ["1"]
    assert outcome.out.read_text() == plain.stdout
    assert outcome.err.read_text() == plain.stderr


def test_names(run: Callable[..., Ran], directory: Path) -> None:
    (directory / "show.py").write_text("import sys, subprocess\n" * 2 + "exec(sys.argv[1])\n")
    _, log = run(
        """
        import multiprocessing, os, subprocess, sys, threading
        def python(code="pass"):
            subprocess.run([sys.executable, "show.py", code], check=True)
        def idle(): pass
        if __name__ == "__main__":
            subprocess.run(["true"])
            python()
            if os.fork() == 0: python(); os._exit(0)
            os.wait()
            p = multiprocessing.get_context("spawn").Process(target=idle)
            p.start()
            p.join()
            one = f"{sys.executable} show.py"
            subprocess.run(["sh", "-c", f"{one} pass; {one} 1"])
            subprocess.run(["true"])
            python("subprocess.run([sys.executable, 'show.py', 'pass'])")
            t = threading.Thread(target=python)
            t.start()
            t.join()
        """
    )
    assert named(log) == ["1", "2.1", "3", "sh-1", "sh-1", "sh-1~2", "4", "4.1", "1@unseen"]
    assert named(log, "started") == ["1", "2.1", "3", "4", "4.1", "1@unseen"]


def test_ranks_that_a_shell_starts_are_named_as_such(run: Callable[..., Ran]) -> None:
    """Which of them comes first is chance."""
    _, log = run(
        """
        import subprocess, sys
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'])"
        one = f'{sys.executable} -c "{code}"'
        subprocess.run(["sh", "-c", f"RANK=1 {one} & RANK=0 {one} & wait; RANK=1 exec {one}"])
        """
    )
    ranks = {f"sh-1.rank{rank}{more}" for rank in (0, 1) for more in ("", ".1")}
    assert {*named(log)} == ranks | {"sh-1.rank1~2", "sh-1.rank1~2.1"}


def test_processes_that_do_not_listen(run: Callable[..., Ran]) -> None:
    outcome, _ = run(
        """
        import subprocess, sys
        for option in ("-I", "-S", "-E", "-s"):
            subprocess.run([sys.executable, option, "-c", "pass"], check=True)
        """
    )
    assert outcome.processes.unheard == 3


def test_processes_that_the_program_ends(run: Callable[..., Ran]) -> None:
    outcome, _ = run(
        """
        import multiprocessing, signal, subprocess, sys, time
        def sleep(begun):
            begun.set()
            time.sleep(60)
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                begun = context.Event()
                p = context.Process(target=sleep, args=(begun,))
                p.start()
                begun.wait()
                p.terminate()
                p.join()
            code = "print('begun', flush=True); import time; time.sleep(60)"
            p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            p.stdout.readline()
            p.send_signal(signal.SIGCONT)
            p.kill()
            p.wait()
        """
    )
    assert outcome.processes.ended == {"1", "2", "3", "4"}
    assert outcome.processes.left <= {"forkserver-1"}
    assert outcome.processes.unheard == 0


def test_nothing_is_left_running(run: Callable[..., Ran]) -> None:
    """Also what took a session of its own, and what this started with an empty environment."""
    outcome, _ = run(
        """
        import subprocess, sys, time
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True, env={})
        subprocess.Popen(["sh", "-c", "echo $$; sleep 60"], start_new_session=True)
        while len(open("../kept/run-1.out").readlines()) < 3: time.sleep(0.05)
        """
    )
    pids = [int(line) for line in outcome.out.read_text().split()]
    assert len(pids) == 3
    deadline = time.monotonic() + 5
    while any(_runs(Path("/proc", str(pid))) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert outcome.processes.left == {"1", "2"}


def test_seeds_of_processes(run: Callable[..., Ran]) -> None:
    text = """
        import multiprocessing, random, subprocess, sys
        def draw(): print(random.random(), flush=True)
        if __name__ == "__main__":
            draw()
            for _ in range(2):
                subprocess.run([sys.executable, "-c", "import random; print(random.random())"])
            for method in ("fork", "fork", "forkserver"):
                p = multiprocessing.get_context(method).Process(target=draw)
                p.start()
                p.join()
        """
    once, again, other = (
        run(text, name, seed=seed)[0].out.read_text().split()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert once == again
    assert not {*once} & {*other}
    assert len({*once}) == 6
    plain, too = (run(text, name, mode="as-is")[0].out.read_text() for name in ("d", "e"))
    assert not {*plain.split()} & {*too.split()}


def test_where_capture_cannot_begin_the_run_ends(run: Callable[..., Ran]) -> None:
    with pytest.raises(UsageError, match="unset REPRO_AUDIT_ENGINE"):
        run(
            """
            import os, subprocess, sys, time
            os.environ["REPRO_AUDIT_ENGINE"] = "none_such"
            subprocess.run([sys.executable, "-c", "import torch"])
            open("went_on", "w").close()
            """
        )
    assert not Path("went_on").exists()


def test_a_log_that_cannot_be_written_ends_the_run(run: Callable[..., Ran]) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*run-1.processes"):
        run(
            """
            import os, subprocess, sys
            os.mkdir("../kept/run-1.processes")
            subprocess.run([sys.executable, "-c", "pass"])
            """
        )


def test_a_process_of_another_interpreter_is_left_alone(
    run: Callable[..., Ran], directory: Path
) -> None:
    """Here by its prefix; it has to be told from one of ours before anything is imported."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "other"], check=True)
    outcome, log = run(
        """
        import subprocess
        ours = "[m for m in sys.modules if 'repro' in m]"
        code = f"import sys, os; print({ours}, 'PYTHONPATH' in os.environ)"
        subprocess.run(["other/bin/python", "-c", code], check=True)
        """
    )
    assert outcome.out.read_text() == "[] False\n"
    assert outcome.processes.unheard == 1
    assert named(log) == []


def test_what_the_supervisor_tells_a_run_by_does_not_reach_the_program(
    run: Callable[..., Ran],
) -> None:
    outcome, _ = run("import json, os; print(json.dumps(dict(os.environ)))\n")
    seen = json.loads(outcome.out.read_text())
    assert {k: v for k, v in os.environ.items() if seen.get(k) != v} == {}
    assert set(seen) - set(os.environ) <= {"PYTHONHASHSEED", "LC_CTYPE"}
