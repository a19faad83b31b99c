"""Ranks that part: the first step after which they do, and which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from repro_audit.diagnose.replicas import ReplicaDrift, replica_drift
from repro_audit.model.codes import BACKWARD, KIND_OP, KIND_PARAM, WEIGHTS
from repro_audit.trace import Trace, Writer, folder_of

# After each step, the values of two weights.
Steps = Sequence[tuple[int, int]]


def write(path: Path, process: str, rank: int | None, steps: Steps) -> None:
    writer = Writer(path, run="run-1", plan={}, process=process, late=bool(process))
    spec = writer.spec("float32", (1,), "cpu")
    sites = [writer.site("", "aten.mm.default"), writer.site("fc", "param:weight")]
    sites.append(writer.site("fc", "param:bias"))
    for site in sites[1:] if steps else ():
        at = len(writer.events)
        writer.events.append((at, KIND_PARAM, 0, WEIGHTS, 0, site, 0, None, None, 0))
        writer.outputs.append((at, 0, spec, bytes(16), None))
        writer.clock.append((at, at))
    index = len(writer.events)
    for step, values in enumerate(steps):
        for site, value in zip(sites, (0, *values), strict=True):
            kind, phase = (KIND_PARAM, WEIGHTS) if site != sites[0] else (KIND_OP, BACKWARD)
            writer.events.append((index, kind, step, phase, 0, site, 0, None, None, 0))
            writer.outputs.append((index, 0, spec, bytes([value]) * 16, None))
            writer.clock.append((index, index))
            index += 1
    closing_: dict[str, Any] = {"events": index, "rank": rank}
    if not process:
        closing_["processes"] = [place.stem for place in folder_of(path).glob("*.sqlite")]
    writer.close(manifest={}, closing=closing_)


@pytest.fixture
def drift(tmp_path: Path) -> Callable[..., ReplicaDrift | None]:
    """What is found in a run of so many ranks, which a launcher started."""

    def found(*ranks: Steps, first: int | None = 0) -> ReplicaDrift | None:
        own = tmp_path / "run-1.sqlite"
        folder_of(own).mkdir()
        for rank, steps in enumerate(ranks):
            number = None if first is None else rank + first
            write(folder_of(own) / f"{rank + 1}.sqlite", str(rank + 1), number, steps)
        write(own, "", None, ())
        with closing(Trace.open(own)) as trace:
            return replica_drift(trace)

    return found


def test_the_first_step_is_named_and_the_rank_unlike_most(drift) -> None:
    same = [(1, 1), (2, 2), (3, 3), (4, 4)]
    other = [(1, 1), (2, 2), (3, 9), (8, 9)]
    assert drift(same, other, same) == ReplicaDrift(2, ("fc.bias",), (1,))


def test_of_two_the_first_counts_as_right(drift) -> None:
    assert drift([(1, 1), (2, 2)], [(1, 1), (5, 6)]) == ReplicaDrift(
        1, ("fc.bias", "fc.weight"), (1,)
    )


def test_ranks_that_agree_do_not_drift(drift) -> None:
    assert drift(*[[(1, 1), (2, 2)]] * 3) is None


def test_weights_that_were_never_the_same_are_no_replicas(drift) -> None:
    assert drift([(1, 1), (1, 2)], [(2, 1), (3, 2)]) is None


def test_weights_that_begin_alike_and_are_not_learnt_in_common_are_no_replicas(drift) -> None:
    assert drift([(0, 1), (0, 2), (3, 3)], [(0, 2), (0, 3), (4, 4)]) is None


def test_processes_without_a_rank_are_no_replicas(drift) -> None:
    assert drift([(1, 1), (2, 2)], [(1, 1), (3, 3)], first=None) is None


def test_a_rank_that_ended_earlier_is_compared_as_far_as_it_came(drift) -> None:
    assert drift([(1, 1), (2, 2)], [(1, 1)]) is None
