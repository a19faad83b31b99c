"""What became of the processes that a program started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repro_audit.replicate.lineage import VARIABLE


@dataclass(frozen=True, slots=True)
class Census:
    """Processes of a run but its own, by the names of their trace files where they have any.

    `unheard` counts Python processes that were started and never said that they were a part of the
    run, `loaders` those of data loaders. `ended` were ended by the program, `left` still ran when
    it had ended. `traced` left a trace.
    """

    unheard: int = 0
    loaders: int = 0
    ended: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    traced: frozenset[str] = frozenset()


def census(log: Path) -> Census:
    """Read the log that the processes of a run wrote; those alive now are `left`."""
    if not log.is_file():
        return Census()
    started: set[str] = set()
    here: set[str] = set()
    loaders: set[str] = set()
    ended: set[str] = set()
    left: set[str] = set()
    traced: set[str] = set()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        what, pid, name = line.split(" ", 2)
        if what == "started":
            started.add(name)
        elif what == "loader":
            loaders.add(name)
        elif what == "ended":
            ended.add(name)
        elif what == "traced":
            traced.add(name)
        elif what == "untraced":
            traced.discard(name)
        elif what == "here":
            here.add(name)
            if _runs(Path("/proc", pid)):
                left.add(name)
    return Census(
        unheard=len(started - here - loaders),
        loaders=len(loaders),
        ended=frozenset(ended - loaders),
        left=frozenset(left - loaders),
        traced=frozenset(traced),
    )


def strays_of(plan_file: Path, leader: int) -> list[int]:
    """Processes that the run of this plan started, other than the leader of its process group."""
    word = f"{VARIABLE}={plan_file}".encode(errors="surrogateescape")
    return [
        int(place.name)
        for place in _processes()
        if int(place.name) != leader and _carries(place, word) and _runs(place)
    ]


def _processes() -> Iterator[Path]:
    return (place for place in Path("/proc").iterdir() if place.name.isdigit())


def _carries(place: Path, word: bytes) -> bool:
    """True if a process began with this word in its environment."""
    try:
        environment = (place / "environ").read_bytes()
    except OSError:
        # It is another user's, or gone.
        return False
    return any(entry.partition(b"\n")[0] == word for entry in environment.split(b"\0"))


def _runs(place: Path) -> bool:
    """True unless a process is gone, or a zombie that nobody has reaped."""
    try:
        status = (place / "stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}
