"""The referee of two replicas in lock-step: what it orders for what it hears."""

from __future__ import annotations

from repro_audit.replicate.link import (
    DONE,
    EVENT,
    FREE,
    KEPT,
    MATCHED,
    ORDER,
    SILENT,
    STOP,
    THREAD,
    WAITS,
    name_of,
)
from repro_audit.replicate.referee import Referee, Report

MAIN, OTHER = name_of(""), name_of("1")


def thread(number: int, name: bytes = MAIN) -> Report:
    return THREAD, number, bytes(8), name


def event(value: int, key: int = 0, number: int = 0) -> Report:
    return EVENT, number, bytes([key]) * 8, bytes([value]) * 16


def waits(number: int = 0) -> Report:
    return WAITS, number, bytes(8), SILENT


DONE_ = (DONE, 0, bytes(8), SILENT)


def orders(referee: Referee, side: int) -> list[tuple[bytes, int, int]]:
    return list(ORDER.iter_unpack(referee.orders(side)))


def begun() -> Referee:
    referee = Referee()
    for side in (0, 1):
        referee.hear(side, [thread(0)])
    return referee


def test_events_are_acknowledged_in_bundles() -> None:
    referee = begun()
    referee.hear(0, [event(n) for n in range(1, 16)])
    referee.hear(1, [event(n) for n in range(1, 16)])
    assert orders(referee, 0) == orders(referee, 1) == []
    referee.hear(0, [event(16)])
    referee.hear(1, [event(16)])
    assert orders(referee, 0) == orders(referee, 1) == [(MATCHED, 0, 16)]


def test_who_waits_hears_at_once() -> None:
    referee = begun()
    referee.hear(0, [event(1), event(2), waits()])
    assert referee.waiting(0)
    assert not referee.waiting(1)
    referee.hear(1, [event(1)])
    assert orders(referee, 0) == [(MATCHED, 0, 1)]
    assert not referee.waiting(0)


def test_an_event_that_differs_stops_both() -> None:
    referee = begun()
    referee.hear(0, [event(n) for n in (1, 2, 3, 4)])
    referee.hear(1, [event(n) for n in (1, 2, 9)])
    assert referee.apart
    assert orders(referee, 0) == orders(referee, 1) == [(MATCHED, 0, 2), (STOP, 0, 2)]
    referee.hear(0, [(KEPT, 0, bytes(8), SILENT)])
    assert referee.kept == [True, False]


def test_all_threads_are_known_alike_at_the_stop() -> None:
    referee = begun()
    referee.hear(0, [thread(1, OTHER)])
    # Each replica numbers threads its own way.
    referee.hear(1, [thread(2, OTHER)])
    referee.hear(0, [event(5, number=1), event(6, number=1), event(1)])
    referee.hear(1, [event(5, number=2), event(2)])
    assert orders(referee, 0) == [(MATCHED, 1, 1), (STOP, 0, 0)]
    assert orders(referee, 1) == [(MATCHED, 2, 1), (STOP, 0, 0)]


def test_what_has_no_digest_says_nothing() -> None:
    referee = begun()
    referee.hear(0, [event(0), event(3)])
    referee.hear(1, [event(7), event(3)])
    assert not referee.apart


def test_another_path_lets_both_go_on() -> None:
    referee = begun()
    referee.hear(0, [event(1), event(2, key=1)])
    referee.hear(1, [event(1), event(2, key=2)])
    assert (referee.apart, referee.free) == (False, True)
    assert orders(referee, 0) == orders(referee, 1) == [(FREE, 0, 0)]


def test_threads_interleave_freely() -> None:
    referee = begun()
    for side in (0, 1):
        referee.hear(side, [thread(1, OTHER)])
    referee.hear(0, [event(1), event(8, key=8, number=1), event(2)])
    referee.hear(1, [event(8, key=8, number=1), event(1), event(2)])
    assert (referee.apart, referee.free) == (False, False)


def test_an_end_is_waited_for() -> None:
    referee = begun()
    referee.hear(0, [event(1), event(2), DONE_])
    assert referee.waiting(0)
    assert orders(referee, 0) == []
    referee.hear(1, [event(1)])
    assert not referee.free
    referee.hear(1, [event(3)])
    assert referee.apart


def test_one_that_goes_on_longer_goes_on_alone() -> None:
    referee = begun()
    referee.hear(0, [event(1), DONE_])
    referee.hear(1, [event(1)])
    assert referee.free
    referee = begun()
    referee.hear(0, [event(1)])
    referee.gone(0)
    assert not referee.free
    referee.gone(1)
    assert referee.free
