"""A pickle read as data: what it says, and nothing that it asks for."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.checkpoint.pickled import Made, Named, Outside, read
from repro_audit.errors import CheckpointError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(PLAIN, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_what_they_were(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol), "it") == value


@given(PLAIN)
def test_values_that_are_met_twice(value: Any) -> None:
    shared = {"a": value}
    assert read(pickle.dumps([shared, shared, value]), "it") == [shared, shared, value]


def test_a_value_that_holds_itself() -> None:
    value: list[Any] = [1]
    value.append(value)
    found = read(pickle.dumps(value), "it")
    assert found[1] is found


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_containers_of_the_library(protocol: int) -> None:
    ordered = collections.OrderedDict(b=1, a=2)
    default = collections.defaultdict(list, x=[3])
    found = read(pickle.dumps([ordered, default, frozenset({4}), bytearray(b"5")], protocol), "it")
    assert found[:3] == [{"b": 1, "a": 2}, {"x": [3]}, {4}]
    assert list(found[0]) == ["b", "a"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_object_is_a_name_and_its_state(protocol: int) -> None:
    found = read(pickle.dumps(argparse.Namespace(lr=0.1), protocol), "it")
    assert isinstance(found, Made)
    assert found.state == {"lr": 0.1}
    assert Named("argparse", "Namespace") in (found.made_by, *found.args)


class Harmful:
    """What a hostile file holds."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_nothing_runs(tmp_path: Path) -> None:
    place = tmp_path / "harm"
    found = read(pickle.dumps(Harmful(place)), "it")
    assert not place.exists()
    assert isinstance(found, Made)
    assert str(found.made_by).endswith(".mkdir")
    assert found.args == (str(place),)


def test_what_is_brought_from_outside() -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", 7) if obj is Outside else None

    import io

    held = io.BytesIO()
    Pickler(held).dump([Outside])
    (found,) = read(held.getvalue(), "it")
    assert isinstance(found, Outside)
    assert found.key == ("storage", 7)


@given(PLAIN, st.data())
def test_a_pickle_that_is_cut_is_refused(value: Any, data: st.DataObject) -> None:
    whole = pickle.dumps(value)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(cut, "it")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        read(data, "it")


@given(PLAIN, st.integers(0, 1000), st.integers(0, 255))
def test_a_pickle_with_a_wrong_byte_is_read_or_refused(value: Any, at: int, byte: int) -> None:
    damaged = bytearray(pickle.dumps(value, 2))
    damaged[at % len(damaged)] = byte
    with contextlib.suppress(CheckpointError):
        read(bytes(damaged), "it")


def test_of_a_damaged_string_nothing_is_warned() -> None:
    with pytest.raises(CheckpointError, match="instruction STRING"):
        read(b"S'an escape\\_of nothing'\n.", "it")
