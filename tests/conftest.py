"""What all tests share: the option that runs the whole of what CI runs a fixed sample of, and how a
test runs the command line.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure() -> None:
    # Ignored where the tests are a shell's background job, and inherited by what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole",
        action="store_true",
        help="run the tests marked `whole` too: the rest of the zoo, long series of kills; and "
        "start interpreters where CI forks one that has imported torch",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--whole"):
        return
    left = [item for item in items if item.get_closest_marker("whole")]
    if left:
        # Counted in pytest's last line: nothing is skipped unsaid.
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("whole")]


class Forks:
    """Command lines in forks of a process that has imported torch: see `warm.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        )
        assert self._answer(time.monotonic() + 120) == {"ready": True}

    def run(
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of `repro-audit WORDS`, with the environment `env`."""
        deadline = time.monotonic() + timeout
        with tempfile.TemporaryDirectory() as name:
            out, err = Path(name, "out"), Path(name, "err")
            places = {"cwd": str(cwd), "out": str(out), "err": str(err)}
            assert self._process.stdin is not None
            self._process.stdin.write(
                json.dumps({"words": list(words), "env": dict(env), **places}) + "\n"
            )
            self._process.stdin.flush()
            pid = self._answer(deadline)["pid"]
            try:
                code = self._answer(deadline)["code"]
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                self._answer(time.monotonic() + 60)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
            return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())

    def _answer(self, deadline: float) -> dict[str, int]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], deadline - time.monotonic())[0]:
            raise TimeoutError
        line = self._process.stdout.readline()
        assert line, f"warm.py ended with {self._process.wait()}"
        found: dict[str, int] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """One for all tests of a worker."""
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def command_line(request: pytest.FixtureRequest) -> CommandLine:
    """Runs `repro-audit WORDS` with the environment `env`: a run is a fork of a process that has
    imported torch, wherever an interpreter would find the same as that did when it started. Tests
    marked `interpreter`, and all with `--whole`, start interpreters.
    """
    if not (request.config.getoption("--whole") or request.node.get_closest_marker("interpreter")):
        forked: Forks = request.getfixturevalue("forks")
        return forked.run

    def run(
        words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        # As the installed command: without the working directory on its path.
        return subprocess.run(
            [sys.executable, "-P", "-m", "repro_audit", *words],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run
