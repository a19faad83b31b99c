"""A part of a trace: what is left of it, under which names."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from repro_audit.trace import Trace

from .conftest import EVENTS


def test_a_part_has_events_of_its_own_number(written) -> None:
    with closing(Trace.open(written())) as whole:
        wanted = np.arange(EVENTS) >= 12
        part = whole.part(wanted, later=7)
        assert len(part) == EVENTS - 12
        assert list(part.step) == [step + 7 for step in whole.step[12:]]
        assert part.site_name(0) == whole.site_name(12)
        assert part.signature(3) == whole.signature(15)
        assert part.event(3).outputs == whole.event(15).outputs
        assert part.place(3) == 15
        assert part.payload(EVENTS - 13, 1, 0) == whole.payload(EVENTS - 1, 1, 0)


def test_calls_are_numbered_from_0_and_keep_their_name_in_the_whole(written) -> None:
    with closing(Trace.open(written())) as whole:
        # Each step has two calls of each of five sites: here the first two sites lack their first.
        part = whole.part(np.arange(EVENTS) >= 12)
        assert [whole.call_index[i] for i in range(12, 20)] == [0, 0, 0, 1, 1, 1, 1, 1]
        assert list(part.call_index[:8]) == [0, 0, 0, 0, 0, 1, 1, 1]
        for i in range(len(part)):
            assert part.whole_key(i) == whole.key(i + 12)
            assert part.find(part.key(i)) == i


def test_parts_of_parts_lead_back_to_the_whole(written) -> None:
    with closing(Trace.open(written())) as whole:
        part = whole.part(np.arange(EVENTS) >= 12, later=1)
        smaller = part.part(np.arange(len(part)) < 5, later=1)
        assert list(smaller.step) == [3] * 5
        assert smaller.whole_key(4) == whole.key(16)
        assert whole.whole_key(4) == whole.key(4)


def test_a_part_need_not_have_the_cause_of_an_event(tmp_path) -> None:
    from repro_audit.trace import Writer

    writer = Writer(tmp_path / "a.audit", run="a", plan={})
    site, spec = writer.site("", "aten.add.Tensor"), writer.spec("float32", (1,), "cpu")
    for i in range(4):
        writer.events.append((i, 0, 0, 4, 0, site, i, None, max(i - 1, 0), 0))
        writer.outputs.append((i, 0, spec, bytes([i]) * 16, None))
    writer.close(manifest={}, closing={"events": 4})
    with closing(Trace.open(tmp_path / "a.audit")) as whole:
        part = whole.part(np.arange(4) >= 2)
        assert whole.event(2).cause == 1
        assert part.event(0).cause is None
        assert part.event(1).cause == 0
        assert part.maker(1, bytes([2]) * 16) == 0
        assert part.maker(1, bytes([0]) * 16) is None


def test_an_empty_part_is_none(written) -> None:
    with closing(Trace.open(written())) as whole:
        part = whole.part(np.zeros(EVENTS, np.bool_))
        assert len(part) == 0
        assert len(part.signatures.values) == 0
