"""What the processes of a run are called, and how a run reaches the Python ones among them."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

# The environment variable that tells a Python process of which run it is a part; it is gone before
# any code of the program's runs, and so is our directory from PYTHONPATH.
VARIABLE = "REPRO_AUDIT_CARRIED"
# Where launchers that are no Python put the rank of each process that they start.
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_CARRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "carry")  # noqa: PTH100, PTH118, PTH120


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a run: where its plan and the log of its processes are, and what it is called.

    `name` is '' for the program's own. Call sites below `bases` are shown relative to them. `group`
    is the process group of the run.

    `worker` is the number of a process among those of a pool, which share a name: which of them
    does a task is chance. A loader worker is not `observed`: what it makes is recorded where it
    arrives.
    """

    plan: str
    log: str
    bases: tuple[str, ...]
    group: int
    interpreter: tuple[str, str]
    name: str = ""
    worker: int = 0
    observed: bool = True

    @property
    def file(self) -> str:
        """What its trace is called, without a suffix."""
        return f"{self.name}+{self.worker}" if self.worker else self.name


def interpreter() -> tuple[str, str]:
    """What another process must run under for what this one imports to be there too."""
    return str(sys.implementation.cache_tag), sys.prefix


def member_from(values: Mapping[str, Any]) -> Member:
    """The member that `carried` named."""
    lists = {name: tuple(values[name]) for name in ("bases", "interpreter")}
    return Member(**{**values, **lists})


class Lineage:
    """Names the processes that this one starts, in the order in which each of its threads does.

    The second process is 2, the first that this one starts 2.1, the first that thread 3 of the
    program starts 1@3. Programs that are no Python are numbered by kind (bash-1), so that one
    started in one run only, a compiler, leaves the others their names. `thread` gives the name of
    the calling thread.
    """

    def __init__(self, member: Member, thread: Callable[[], str]) -> None:
        self.member = member
        self.thread = thread
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._local = threading.local()

    def arrive(self) -> None:
        """Tell that this process is a part of the run, and find out what it is called.

        All that one command of another kind than Python starts has that command's name: its ranks
        are told apart as such (bash-1.rank1), else by the order in which they come (bash-1~2).
        Raises OSError.
        """
        member = self.member
        if "-" in member.name.rpartition(".")[2].partition("@")[0]:
            for rank in filter(str.isdigit, (os.environ.get(name, "") for name in _RANKS)):
                member = replace(member, name=f"{member.name}.rank{rank}")
                break
        self.tell("here", member)
        # One that became another program has come before.
        number = _arrivals(member).index(str(os.getpid())) + 1
        if number > 1:
            member = replace(member, name=f"{member.name}~{number}")
            self.tell("here", member)
        self.member = member

    def become(self, member: Member) -> None:
        """Be another process now: after a fork, or once it is known which."""
        self.member = member
        self._counts = Counter()
        self._lock = threading.Lock()

    def next(self, kind: str = "") -> Member:
        """The next process that the calling thread starts."""
        thread = self.thread()
        with self._lock:
            self._counts[thread, kind] += 1
            number = self._counts[thread, kind]
        name = f"{kind}-{number}" if kind else str(number)
        if thread:
            name = f"{name}@{thread.replace('.', '-')}"
        own = self.member.name
        return replace(self.member, name=f"{own}.{name}" if own else name, worker=0)

    @property
    def starting(self) -> Member | None:
        """The process that the calling thread is about to start, if it is known already."""
        found: Member | None = getattr(self._local, "starting", None)
        return found

    @contextmanager
    def start(self, member: Member) -> Iterator[None]:
        """While the block runs, the calling thread starts `member`."""
        self._local.starting = member
        try:
            yield
        finally:
            self._local.starting = None

    def tell(self, what: str, member: Member) -> None:
        """Write a line into the run's log of processes. Raises OSError."""
        line = f"{what} {os.getpid()} {member.file or '-'}\n"
        descriptor = os.open(member.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _arrivals(member: Member) -> list[str]:
    """The processes that came under this name, in order."""
    with open(member.log, encoding="utf-8") as log:  # noqa: PTH123
        lines = [line.split() for line in log]
    return list(
        dict.fromkeys(pid for what, pid, name in lines if (what, name) == ("here", member.file))
    )


def carried(member: Member, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a Python process becomes `member`."""
    original = environment.get("PYTHONPATH")
    word = json.dumps({**asdict(member), "pythonpath": original})
    path = os.pathsep.join([_CARRY, original]) if original else _CARRY
    # The plan stands first, as it is: by it the supervisor knows what belongs to its run.
    return {**environment, VARIABLE: f"{member.plan}\n{word}", "PYTHONPATH": path}
