"""Many devices: what most give is right, and the one that gives something else is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from repro_audit.diagnose.screened import Candidate, Findings, screen
from repro_audit.diagnose.screened import Run as Made
from repro_audit.diagnose.suspected import suspected
from repro_audit.errors import InconclusiveError
from repro_audit.model import Observed
from repro_audit.trace import Trace

Run = Callable[..., Trace]
H200 = {"torch": {"cuda.devices": ["NVIDIA H200"], "version.cuda": "13.0"}}
A100 = {"torch": {"cuda.devices": ["NVIDIA A100"], "version.cuda": "13.0"}}


@pytest.fixture
def screened(run: Run) -> Callable[..., Findings]:
    """What comes of devices by their name, each with a number that each of its runs computes."""

    def find(devices: dict[str, Sequence[int]], kinds: dict[str, Any] | None = None) -> Findings:
        rounds = max(map(len, devices.values()))
        return screen([candidate(run, name, of, kinds) for name, of in devices.items()], rounds)

    return find


def candidate(
    run: Run,
    name: str,
    values: Sequence[int],
    kinds: dict[str, Any] | None = None,
    **known: Any,
) -> Candidate:
    manifest = (kinds or {}).get(name, H200)
    on = {"device": "cuda:0"}
    made = [run([("add", 1, on), ("mm", v, on), ("sum", v, on)], manifest) for v in values]
    runs = tuple(Made.of(f"{name}-{n}", t) for n, t in enumerate(made, 1))
    return Candidate(name, runs, **known)


def cause_of(found: Findings, *, trusted: bool = True, stale: bool = False) -> Any:
    return suspected(found.screening, trusted=trusted, recorded=False, stale=stale)


def standings(found: Findings) -> dict[str, str]:
    return {device.name: device.standing for device in found.screening.devices}


def test_all_agree(screened: Callable[..., Findings]) -> None:
    found = screened({f"cuda:{n}": [7, 7] for n in range(4)})
    assert set(standings(found).values()) == {"agrees"}
    assert found.observed == Observed(8, 1, 0, 28)
    assert (found.counts.compared, found.counts.divergent) == (21, 0)
    assert (found.divergence, found.screening.kinds) == (None, 1)
    assert cause_of(found) is None


def test_one_that_always_computes_otherwise(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [9, 9], "cuda:1": [7, 7], "cuda:2": [7, 7]})
    assert standings(found) == {"cuda:0": "differs", "cuda:1": "agrees", "cuda:2": "agrees"}
    (odd,) = found.screening.suspects
    assert (odd.name, odd.hardware, odd.differing) == ("cuda:0", "NVIDIA H200", 2)
    assert odd.origin is not None
    assert odd.origin.key.op == "aten.mm.default"
    assert found.between == (("cuda:1", "cuda:1-1"), ("cuda:0", "cuda:0-1"))
    assert found.observed == Observed(6, 2, 8, 15)
    cause = cause_of(found, trusted=False)
    assert cause is not None
    assert (cause.cls, cause.confidence) == ("suspected-hardware", "likely")
    assert cause.evidence == (
        "cuda:0 gives another result in all of 2 runs; the 2 others of its kind give one result in "
        "all of their 4 runs",
    )
    assert cause.remedies[0] == "screen all of them again, and longer: --rounds 10"


def test_one_that_errs_now_and_then(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [7, 7, 7], "cuda:1": [7, 8, 7], "cuda:2": [7, 7, 7]})
    assert standings(found) == {"cuda:0": "agrees", "cuda:1": "varies", "cuda:2": "agrees"}
    assert found.screening.suspects[0].differing == 1
    assert found.divergence is not None
    assert found.divergence.b.event(1).outputs[0].digest == (8).to_bytes(16, "little")


def test_the_other_of_two_tells_if_it_repeats_itself(screened: Callable[..., Findings]) -> None:
    """What never equals the steady one's result is wrong each time, and has no voice."""
    found = screened({"cuda:0": [3, 4], "cuda:1": [7, 7]})
    assert standings(found) == {"cuda:0": "varies", "cuda:1": "agrees"}
    assert found.screening.suspects[0].differing == 2


@pytest.mark.parametrize("values", [(7, 9), (7, 7, 9, 9), (1, 2, 3)])
def test_without_a_majority_nobody_is_suspected(
    screened: Callable[..., Findings], values: Sequence[int]
) -> None:
    found = screened({f"cuda:{n}": [value] * 2 for n, value in enumerate(values)})
    assert set(standings(found).values()) == {"disputed"}
    assert found.screening.suspects == ()
    assert all(device.origin is not None for device in found.screening.devices)
    cause = cause_of(found)
    assert cause is not None
    assert cause.cls == "unknown"


def test_most_of_them_are_enough(screened: Callable[..., Findings]) -> None:
    values = (7, 7, 7, 9, 8)
    found = screened({f"cuda:{n}": [value] for n, value in enumerate(values)})
    assert [device.name for device in found.screening.suspects] == ["cuda:3", "cuda:4"]


def test_a_program_that_varies_tells_nothing(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [1, 2], "cuda:1": [3, 4], "cuda:2": [5, 5]})
    assert found.screening.suspects == ()
    assert [device.name for device in found.screening.unaccused] == ["cuda:0", "cuda:1"]
    assert cause_of(found) is None


def test_several_that_vary_speak_for_the_program(screened: Callable[..., Findings]) -> None:
    """Two faults at once are rarer than one of a program that nobody knows to repeat itself."""
    values = {f"cuda:{n}": [7, 7] for n in range(6)}
    found = screened({**values, "cuda:2": [7, 8], "cuda:4": [9, 7]})
    assert [device.name for device in found.screening.suspects] == ["cuda:2", "cuda:4"]
    assert cause_of(found, trusted=True).cls == "suspected-hardware"
    assert cause_of(found, trusted=False).cls == "unknown"


def test_what_earlier_runs_left_is_no_fault_of_a_device(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [8, 7], "cuda:1": [7, 7]})
    cause = cause_of(found, stale=True)
    assert cause.cls == "unknown"
    assert cause.remedies == ("--isolate gives each run its own copy of the directory",)


def test_alone_it_is_the_device_or_the_program(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [7, 7, 8]})
    assert found.screening.suspects == ()
    assert standings(found) == {"cuda:0": "varies"}
    assert found.screening.alone[0].differing == 1
    for trusted, cls in ((True, "suspected-hardware"), (False, "unknown")):
        cause = cause_of(found, trusted=trusted)
        assert cause is not None
        assert cause.cls == cls


def test_kinds_are_compared_apart(screened: Callable[..., Findings]) -> None:
    kinds = {"cuda:2": A100, "cuda:3": A100, "cuda:4": A100}
    found = screened({f"cuda:{n}": [7 if n < 2 else 9] for n in range(4)}, kinds)
    assert set(standings(found).values()) == {"agrees"}
    assert [device.kind for device in found.screening.devices] == [0, 0, 1, 1]
    values = (7, 7, 9, 9, 8)
    found = screened({f"cuda:{n}": [value] for n, value in enumerate(values)}, kinds)
    assert [device.name for device in found.screening.suspects] == ["cuda:4"]


def test_one_run_of_a_kind_has_agreed_with_nothing(screened: Callable[..., Findings]) -> None:
    found = screened({"cuda:0": [7], "cuda:1": [7], "cuda:2": [7]}, {"cuda:2": A100})
    assert standings(found) == {"cuda:0": "agrees", "cuda:1": "agrees", "cuda:2": "single"}


def test_a_device_that_fails(run: Run) -> None:
    good = [candidate(run, f"cuda:{n}", [7]) for n in range(2)]
    found = screen([*good, Candidate("cuda:2", (), "an illegal memory access")], 1)
    (odd,) = found.screening.suspects
    assert (odd.name, odd.standing, odd.kind, odd.hardware) == ("cuda:2", "failed", 0, "")
    cause = cause_of(found, trusted=False)
    assert cause.evidence[0].startswith("cuda:2 failed: an illegal memory access; the 2 others")


def test_where_most_fail_it_is_the_program(run: Run) -> None:
    failed = [Candidate(f"cuda:{n}", (), "out of memory") for n in (1, 2, 3)]
    found = screen([candidate(run, "cuda:0", [7]), *failed], 1)
    assert found.screening.suspects == ()
    assert len(found.screening.unaccused) == 3


def test_what_a_device_computed_before_it_failed_counts(run: Run) -> None:
    good = [candidate(run, f"cuda:{n}", [7, 7]) for n in range(2)]
    found = screen([*good, candidate(run, "cuda:2", [9], reason="it was killed")], 2)
    (odd,) = found.screening.suspects
    assert (odd.standing, odd.differing) == ("failed", 1)
    assert found.divergence is not None
    assert found.divergence.origin.key.op == "aten.mm.default"


def test_those_accused_are_told_of_first(screened: Callable[..., Findings]) -> None:
    kinds = {f"cuda:{n}": A100 for n in (2, 3, 4)}
    values = (1, 2, 7, 7, 9)
    found = screened({f"cuda:{n}": [value] for n, value in enumerate(values)}, kinds)
    assert found.between == (("cuda:2", "cuda:2-1"), ("cuda:4", "cuda:4-1"))


def test_events_are_counted_against_what_is_right(screened: Callable[..., Findings]) -> None:
    for odd in range(4):
        found = screened({f"cuda:{n}": [9 if n == odd else 7] for n in range(4)})
        assert (found.counts.compared, found.counts.divergent) == (9, 2)


def test_many_runs_of_many_devices(screened: Callable[..., Findings]) -> None:
    """Results beyond some number are not compared with each other: they differ, or it is late."""
    found = screened({f"cuda:{n}": [n * 2, n * 2 + 1] for n in range(80)})
    assert found.observed.distinct == 160
    assert len(found.screening.unaccused) == 80


def test_runs_that_are_equal_may_be_closed(run: Run) -> None:
    made = [candidate(run, f"cuda:{n}", [7, 7]) for n in range(3)]
    for one in made[1:]:
        for closed in one.runs:
            closed.trace.close()
    assert {device.standing for device in screen(made, 2).screening.devices} == {"agrees"}
    odd = [candidate(run, f"cuda:{n}", values) for n, values in enumerate(((7, 8), (7, 7), (8, 7)))]
    for one in (odd[1].runs[0], odd[1].runs[1], odd[2].runs[0], odd[2].runs[1]):
        one.trace.close()
    found = screen(odd, 2)
    assert [device.standing for device in found.screening.devices] == ["varies", "agrees", "varies"]
    assert all(device.origin for device in (found.screening.devices[0], found.screening.devices[2]))


def test_other_programs_are_not_compared(run: Run) -> None:
    one, other = run([("add", 1), ("mm", 2)]), run([("relu", 1), ("exp", 2)])
    runs = [Candidate(n, (Made.of(n, t),)) for n, t in (("a", one), ("b", other))]
    with pytest.raises(InconclusiveError, match="a and b have 0% of their events in common"):
        screen(runs, 1)


def test_runs_without_a_digest_in_common_are_no_agreement(run: Run) -> None:
    made = [run([("add", value)]) for value in (1, None)]
    runs = [Candidate(str(n), (Made.of(str(n), t),)) for n, t in enumerate(made)]
    with pytest.raises(InconclusiveError, match="no event with a fingerprint in common"):
        screen(runs, 1)
